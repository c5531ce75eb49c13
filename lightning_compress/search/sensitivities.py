"""Sensitivities: the metric with one layer alone compressed, for each method, and a second-order proxy beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import Progress
from torch import nn

from lightning_compress.arguments import argument_texts, check_count, check_function, check_path
from lightning_compress.example_inputs import device_of, evaluating, tensors_in, unwrapped
from lightning_compress.search.fisher import BatchLoss
from lightning_compress.search.measuring.bench import Bench
from lightning_compress.search.measuring.records import TrialRecord, fingerprint
from lightning_compress.search.measuring.results import LayerSensitivity, Sensitivity
from lightning_compress.search.measuring.subsets import count_of, subset
from lightning_compress.search.measuring.trials import Trial, label_of, trials_of
from lightning_compress.search.objectives import Mean, Score, score, training_loss
from lightning_compress.training import WeightCompression
from lightning_compress.training.copies import detached_copy
from lightning_compress.training.plans import check_callbacks, check_orders

__all__ = ["sensitivity"]


def sensitivity(
    module: nn.Module,
    data: Any,
    *,
    methods: Sequence[WeightCompression],
    loss: BatchLoss = training_loss,
    metric: Score | None = None,
    mode: Literal["min", "max"] | None = None,
    examples: int = 1024,
    fisher_examples: int = 512,
    path: str | Path | None = None,
    progress_bar: bool = True,
) -> Sensitivity:
    r"""Measure how much worse a module becomes when one layer alone is compressed, for each layer and each method.

    A method is a callback with its amount: its projection at full strength is applied to one weight after the other,
    without training, and activations stay in float. Beside the measured drop stands a second-order proxy with the
    diagonal of the empirical Fisher matrix, by the labels of the data:

    .. math:: \frac{1}{2} \sum_i F_i (w_i - P(w)_i)^2, \quad
       F_i = \frac{1}{N} \sum_n \left(\frac{\partial \ell_n}{\partial w_i}\right)^2

    The proxy needs no forward pass per layer and method; the rank correlation says how far it can be trusted. All
    passes run in evaluation mode on a copy: the module and the callbacks stay as they are, after an exception too.
    Equal arguments give equal results on one machine.

    Args:
        module: a trained module, with whole parameters.
        data: a loader of batches, or a pair of tensors (inputs, targets). The first ``examples`` are taken, in the
            order of a fixed seed.
        methods: callbacks with their amounts, ``[PruningCallback(0.5), PruningCallback(0.9), QATCallback(4)]``.
        loss: module, batch -> mean loss of the batch, for the proxy; by default the loss that ``training_step``
            returns. ``OfOutputs(F.cross_entropy)`` is for modules without one.
        metric: module, batches -> number; by default the mean of ``loss``. ``Logged("val_acc")`` is a metric that
            ``validation_step`` logs, ``Scored(...)`` one of torchmetrics; see :mod:`~lightning_compress.search`.
        mode: whether the metric is better when it is smaller (``"min"``) or larger (``"max"``); needed with ``metric``.
        examples: number of examples that the metric is measured on.
        fisher_examples: number N of examples of the Fisher information, the first of ``examples``; each takes a
            backward pass of its own, and the relative error falls with the square root of N.
        path: a file of JSON lines, to which every finished trial is added. A killed run that is started again with the
            same arguments goes on from there.
        progress_bar: whether to show a bar on standard error, if that is a terminal.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: an argument is out of range, a method cannot compress the module, or ``path`` is of another run.

    Papers: LeCun, Denker and Solla, "Optimal Brain Damage" (1989); Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted
    Quantization of Neural Networks", https://arxiv.org/abs/1911.03852 (2020).

    >>> from lightning_compress import PruningCallback
    >>> from lightning_compress.search import OfOutputs
    >>> x = torch.eye(2)
    >>> net = nn.Linear(2, 1, bias=False)
    >>> net.weight.data = torch.tensor([[1.0, 3.0]])
    >>> loss = OfOutputs(nn.functional.mse_loss)
    >>> found = sensitivity(net, (x, x @ net.weight.T.detach()), methods=[PruningCallback(0.5)], loss=loss)
    >>> found.rows[0].layer, found.dense, found.rows[0].drop
    ('weight', 0.0, 0.5)
    """
    _check(methods, loss, metric, mode, examples, fisher_examples)
    if path is not None:
        check_path(path=path)
        if Path(path).is_dir():
            raise IsADirectoryError(f"need path as that of a file, got {str(path)!r}, which is a folder")
    parameters = unwrapped(module).parameters()
    devices = sorted({parameter.device.index or 0 for parameter in parameters if parameter.device.type == "cuda"})
    with torch.random.fork_rng(devices):
        torch.manual_seed(0)
        copied = detached_copy(module)
        batches = subset(data, examples, device_of(copied))
        measured: Score = Mean(loss) if metric is None else metric
        with evaluating(copied):
            dense = score(measured, copied, batches)
        trials = trials_of(methods, copied, batches[0])
        count = min(fisher_examples, count_of(batches))
        run = _run(copied, batches, methods, loss, measured, count)
        record = TrialRecord(None if path is None else Path(path), run)
        bench = Bench(copied, batches, loss, measured, count)
        known = {(row["layer"], row["number"]): row for row in record.trials}
        for trial in _shown([trial for trial in trials if trial.key not in known], progress_bar):
            row = known[trial.key] = {"layer": trial.layer, "number": trial.number, **bench.measure(trial)}
            record.add(row)
    rows = (_row(trial, known[trial.key], dense, mode or "min") for trial in trials)
    return Sensitivity(tuple(rows), dense, mode or "min", count_of(batches), count)


def _row(trial: Trial, found: Mapping[str, Any], dense: float, mode: str) -> LayerSensitivity:
    metric = float(found["metric"])
    return LayerSensitivity(
        layer=trial.layer,
        method=repr(trial.method),
        label=label_of(trial.method),
        metric=metric,
        drop=metric - dense if mode == "min" else dense - metric,
        cost=found["cost"],
        first_order=found["first_order"],
        sparsity=found["sparsity"],
        archive_bytes=found["archive_bytes"],
    )


def _check(methods: object, loss: object, metric: object, mode: object, examples: int, fisher_examples: int) -> None:
    if isinstance(methods, str) or not isinstance(methods, Sequence):
        shown = type(methods).__name__
        raise TypeError(f"need methods as a list of callbacks, got {shown}: write [{shown}(...)]")
    check_callbacks(methods)
    if not methods:
        raise ValueError("need at least one method, got none: pass methods=[PruningCallback(0.5), ...]")
    for method in methods:
        if not isinstance(method, WeightCompression):
            raise TypeError(f"need methods that compress weights, got {type(method).__name__}")
    check_orders(methods)
    check_function("module", "batch", loss=loss)
    if metric is not None:
        check_function("module", "batches", metric=metric)
    check_count(examples=examples, fisher_examples=fisher_examples)
    if mode not in ("min", "max", None):
        raise ValueError(f"need mode 'min' or 'max', got mode={mode!r}")
    if metric is not None and mode is None:
        raise ValueError("need mode='min' or mode='max' with metric, which says when it is better, got none")
    if metric is None and mode == "max":
        raise ValueError("need mode='min' without metric, since a loss is better when it is smaller, got mode='max'")


def _run(module: nn.Module, batches: Sequence[Any], methods: Sequence[WeightCompression], *settings: object) -> str:
    """A text that identifies a run, by its weights, data, methods, functions and numbers."""
    texts = [f"{type(method).__qualname__}{argument_texts(method)}" for method in methods]
    return fingerprint([*texts, *map(_text, settings)], [*module.state_dict().values(), *tensors_in(batches)])


def _text(setting: object) -> str:
    name = getattr(setting, "__qualname__", None)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(setting)) if name is None else f"{type(setting).__module__}.{name}"


def _shown(trials: Sequence[Trial], progress_bar: bool) -> Iterator[Trial]:
    """The trials, with a bar on standard error if it is a terminal."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not (progress_bar and console.is_terminal)) as progress:
        yield from progress.track(trials, description="sensitivity")
