"""Objectives: losses that sensitivities differentiate, and metrics that they measure.

A loss is a function ``(module, batch) -> Tensor``, the mean of the batch; a metric is a function
``(module, batches) -> float``. The module is in evaluation mode when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor, nn
from torchmetrics import Metric as TorchMetric

from lightning_compress.arguments import check_function, check_number_answer, check_scalar_answer, shown
from lightning_compress.example_inputs import line_of, tensors_in
from lightning_compress.messages import listed
from lightning_compress.search.fisher import BatchLoss

__all__ = ["Logged", "Mean", "OfOutputs", "Score", "Scored", "score", "size_of", "training_loss"]

Score: TypeAlias = Callable[[nn.Module, Sequence[Any]], float]
"""Module, batches -> number."""


def training_loss(module: nn.Module, batch: Any) -> Tensor:
    """The loss that ``training_step`` of a LightningModule returns.

    Raises:
        ValueError: there is no such step, it fails without a Trainer, or it returns no loss.
    """
    step: Any = getattr(module, "training_step", None)
    ways = "pass loss=OfOutputs(function) of lightning_compress.search, or a function (module, batch) -> loss"
    if step is None:
        raise ValueError(f"need a LightningModule with a training_step, got {type(module).__name__}: {ways}")
    try:
        found = step(batch, 0)
    except RuntimeError as error:
        if "not attached to a `Trainer`" in str(error):
            raise ValueError(f"need a training_step without its Trainer, got {line_of(error)}: {ways}") from error
        raise
    loss = found.get("loss") if isinstance(found, dict) else found
    if not isinstance(loss, Tensor):
        raise ValueError(f"need a training_step that returns a loss, got {type(loss).__name__}: {ways}")
    return loss


@dataclass(frozen=True)
class OfOutputs:
    """A loss of the outputs: ``function(module(inputs), targets)`` of batches ``(inputs, targets)``.

    Attributes:
        function: outputs, targets -> mean of the batch, ``torch.nn.functional.cross_entropy``.

    >>> import torch
    >>> OfOutputs(nn.functional.mse_loss)(nn.Identity(), (torch.ones(2), torch.zeros(2)))
    tensor(1.)
    """

    function: Callable[[Any, Any], Tensor]

    def __post_init__(self) -> None:
        check_function("outputs", "targets", function=self.function)

    def __call__(self, module: nn.Module, batch: Any) -> Tensor:
        inputs, targets = _pair(batch)
        return self.function(module(inputs), targets)


@dataclass(frozen=True)
class Mean:
    """The mean of a loss over all examples.

    Attributes:
        loss: module, batch -> mean of the batch.
    """

    loss: BatchLoss = training_loss

    def __post_init__(self) -> None:
        check_function("module", "batch", loss=self.loss)

    def _value(self, module: nn.Module, batch: Any) -> float:
        value = self.loss(module, batch)
        check_scalar_answer("loss(module, batch)", self.loss, value)
        return float(value.detach())

    def __call__(self, module: nn.Module, batches: Sequence[Any]) -> float:
        sizes = [size_of(batch) for batch in batches]
        values = [self._value(module, batch) for batch in batches]
        return sum(size * value for size, value in zip(sizes, values, strict=True)) / sum(sizes)


@dataclass(frozen=True)
class Scored:
    """A metric of torchmetrics, of the outputs and targets of batches ``(inputs, targets)``.

    Attributes:
        metric: ``MulticlassAccuracy(10)``; its state is not kept.

    >>> import torch
    >>> from torchmetrics.classification import BinaryAccuracy
    >>> Scored(BinaryAccuracy())(nn.Identity(), [(torch.tensor([0.9, 0.2]), torch.tensor([1, 1]))])
    0.5
    """

    metric: TorchMetric

    def __post_init__(self) -> None:
        if not isinstance(self.metric, TorchMetric):
            raise TypeError(f"need metric as an object of torchmetrics, got {shown(self.metric)}")

    def __call__(self, module: nn.Module, batches: Sequence[Any]) -> float:
        metric = self.metric.clone()
        metric.reset()
        for batch in batches:
            inputs, targets = _pair(batch)
            outputs = module(inputs)
            metric.to(targets.device)
            metric.update(outputs, targets)
        return float(metric.compute())


@dataclass(frozen=True)
class Logged:
    """A metric that ``validation_step`` of a LightningModule logs: a monitor of Lightning's.

    Attributes:
        name: the name under which it is logged, ``"val_acc"``.

    Raises:
        ValueError: when it is called, nothing is logged under this name, or the step needs a Trainer.
    """

    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"need name as that of a metric, got {shown(self.name)}")

    def __call__(self, module: nn.Module, batches: Sequence[Any]) -> float:
        step: Any = getattr(module, "validation_step", None)
        ways = "pass metric=Scored(...) or Mean(...) of lightning_compress.search"
        if step is None:
            raise ValueError(f"need a LightningModule with a validation_step, got {type(module).__name__}: {ways}")
        log = _Log()
        with _logging_to(module, log):
            try:
                _hook(module, "on_validation_epoch_start")
                for number, batch in enumerate(batches):
                    log.size = size_of(batch)
                    step(batch, number)
                log.size = 1
                _hook(module, "on_validation_epoch_end")
            except RuntimeError as error:
                if "not attached to a `Trainer`" in str(error):
                    raise ValueError(f"need validation without a Trainer, got {line_of(error)}: {ways}") from error
                raise
        found = log.results()
        if self.name not in found:
            raise ValueError(
                f"need a metric that validation_step logs, got {self.name!r}; there are: {listed(found) or 'none'}"
            )
        return found[self.name]


def score(metric: Score, module: nn.Module, batches: Sequence[Any]) -> float:
    """The value of a metric, which may be a function of a user.

    Raises:
        TypeError: it is no number.
    """
    value: Any = metric(module, batches)
    if not isinstance(value, Tensor):
        check_number_answer("metric(module, batches)", metric, value)
    else:
        check_scalar_answer("metric(module, batches)", metric, value)
    return float(value)


class _Log:
    """Stands in for ``log``: means over examples of numbers, and metrics of torchmetrics."""

    def __init__(self) -> None:
        self.size = 1
        self._sums: dict[str, tuple[float, int]] = {}
        self._metrics: dict[str, TorchMetric] = {}

    def __call__(self, name: str, value: Any, *_: Any, batch_size: int | None = None, **__: Any) -> None:
        if isinstance(value, TorchMetric):
            self._metrics[name] = value
            return
        total, count = self._sums.get(name, (0.0, 0))
        size = self.size if batch_size is None else batch_size
        self._sums[name] = total + size * _number(value), count + size

    def results(self) -> dict[str, float]:
        found = {name: total / count for name, (total, count) in self._sums.items()}
        found |= {name: float(metric.compute()) for name, metric in self._metrics.items()}
        for metric in self._metrics.values():
            metric.reset()
        return found


def _number(value: Any) -> float:
    return float(value.detach() if isinstance(value, Tensor) else value)


@contextmanager
def _logging_to(module: nn.Module, log: _Log) -> Iterator[None]:
    before = vars(module).get("log")
    vars(module)["log"] = log
    for metric in module.modules():
        if isinstance(metric, TorchMetric):
            metric.reset()  # of batches before
    try:
        yield
    finally:
        vars(module).pop("log")
        if before is not None:
            vars(module)["log"] = before


def _hook(module: nn.Module, name: str) -> None:
    hook: Any = getattr(module, name, None)
    if hook is not None:
        hook()


def size_of(batch: Any) -> int:
    """Number of examples in a batch: the first dimension of its first tensor.

    Raises:
        ValueError: there is no such tensor.

    >>> import torch
    >>> size_of({"ids": torch.zeros(4, 2)})
    4
    """
    for tensor in tensors_in(batch):
        if tensor.ndim:
            return len(tensor)
    raise ValueError(f"need batches of tensors whose first dimension is the batch, got {type(batch).__name__}")


def _pair(batch: Any) -> tuple[Any, Any]:
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(
            f"need batches (inputs, targets), got {type(batch).__name__} of {len(tensors_in(batch))} tensors: pass a "
            "function (module, batch) -> loss"
        )
    return batch[0], batch[1]
