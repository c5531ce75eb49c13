"""The model to compare with: the incoming one, if it was trained before, or that of another run."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_compress.arguments import check_number
from lightning_compress.messages import listed
from lightning_compress.report.comparisons import INCOMING
from lightning_compress.report.saved_reports import NAME, read_report
from lightning_compress.training import WeightCompression

__all__ = ["Baseline", "FullSanityCheck", "baseline_metrics", "compared_with", "was_trained"]


def baseline_metrics(baseline: Mapping[str, float] | str | Path | None) -> dict[str, float]:
    """The metrics of a dense model.

    Args:
        baseline: the metrics themselves, or the ``report.json`` of a dense run, or a folder with one in it or below it,
            whose last validation counts.

    Raises:
        TypeError: the baseline is of another kind, or a name is no text, or a metric is not a number.
        ValueError: there are no metrics, or one is not finite; there is no report, or more than one.
        FileNotFoundError: the path does not exist.
    """
    if isinstance(baseline, str | Path):
        return _saved_metrics(Path(baseline))
    if baseline is not None and not isinstance(baseline, Mapping):
        raise TypeError(f"need baseline as metrics by name, or as the path of a report, got {baseline!r}")
    for name, value in (baseline or {}).items():
        if not isinstance(name, str):
            raise TypeError(f"need baseline with the names of metrics, got {name!r}: write {{'val_acc': 0.9}}")
        check_number(**{f"baseline[{name!r}]": value})
        if not math.isfinite(value):
            raise ValueError(f"need baseline[{name!r}] as a finite number, got {value!r}")
    if baseline is not None and not baseline:
        raise ValueError("need baseline with a metric or more, got none: write {'val_acc': 0.9}, or leave it out")
    return dict(baseline or {})


def _saved_metrics(path: Path) -> dict[str, float]:
    if not path.exists():
        raise FileNotFoundError(f"need baseline as metrics or the path of a report, got {str(path)!r}: no such file")
    here = path / NAME
    found = [path] if path.is_file() else [here] if here.exists() else sorted(path.rglob(NAME))
    if len(found) != 1:
        raise ValueError(
            f"need baseline as a folder with one {NAME}, got {str(path)!r} with {len(found)}: name the file"
        )
    metrics = {name: value for name, value in read_report(found[0]).metrics_after.items() if math.isfinite(value)}
    if not metrics:
        raise ValueError(f"need baseline as the report of a run with validation, got {str(found[0])!r} without metrics")
    return metrics


class Baseline:
    """Metrics of the dense model, which the validations of a run must log too.

    Args:
        given: as :func:`baseline_metrics` takes them.

    Attributes:
        metrics: by name.
    """

    def __init__(self, given: Mapping[str, float] | str | Path | None) -> None:
        self.metrics = baseline_metrics(given)
        self._looked = False

    def check(self, trainer: Any) -> None:
        """A run begins: refuse it if it has no validation to compare with.

        Raises:
            ValueError: there is a baseline, and no validation.
        """
        self._looked = not self.metrics
        if self.metrics and not trainer.enable_validation:
            raise ValueError(
                "need a validation to compare with baseline, got none: pass val_dataloaders to fit and define "
                "validation_step, or leave baseline out"
            )

    def look(self, trainer: Any) -> None:
        """Compare the names with those of the first validation that logs any.

        Raises:
            ValueError: the sanity check, before training, lacks a name. Later that is a warning.
        """
        logged = sorted(trainer.callback_metrics)
        if self._looked or not logged:
            return
        self._looked = not trainer.sanity_checking
        missing = [name for name in self.metrics if name not in logged]
        if not missing:
            return
        near = difflib.get_close_matches(missing[0], logged, n=1)
        told = (
            f"need baseline with metrics that validation logs, got {', '.join(map(repr, missing))} where it logs "
            f"{listed(logged)}" + (f"; did you mean {near[0]!r}?" if near else ": name one of these")
        )
        if trainer.sanity_checking:
            raise ValueError(told)
        if trainer.is_global_zero:
            warnings.warn(told, stacklevel=2)


def compared_with(baseline: Mapping[str, float] | str | Path | None) -> str:
    """The model that the metrics before are of, in words."""
    if isinstance(baseline, str | Path):
        return f"the run in {baseline}"
    return "the baseline" if baseline else INCOMING


def was_trained(module: nn.Module, callbacks: Iterable[object]) -> bool:
    """Whether a model that comes into ``fit`` was trained before.

    That is so if a batch normalization has seen batches, or if a method begins at progress 0: who compresses at once
    compresses a trained model.
    """
    norms = [norm.num_batches_tracked for norm in module.modules() if isinstance(norm, _BatchNorm)]
    methods = [callback for callback in callbacks if isinstance(callback, WeightCompression)]
    seen = any(int(batches) > 0 for batches in norms if batches is not None)
    return seen or any(method.schedule(1e-9) > 0 for method in methods)


class FullSanityCheck:
    """Lets the sanity check of a Trainer validate on all batches, until :meth:`close`.

    Args:
        trainer: a Trainer whose ``fit`` has begun.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._steps = vars(trainer).setdefault("_sanity_steps", trainer.num_sanity_val_steps)
        trainer.num_sanity_val_steps = math.inf

    def close(self) -> None:
        """Give the Trainer its number of steps back, which several callbacks may have taken."""
        self._trainer.num_sanity_val_steps = self._steps
        vars(self._trainer).pop("_sanity_steps", None)
