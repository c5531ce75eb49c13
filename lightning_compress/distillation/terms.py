"""Terms: which outputs of student and teacher are compared, by which loss, how strongly and when."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from lightning_compress.arguments import check_code
from lightning_compress.distillation.losses import Loss, soft_targets
from lightning_compress.distillation.regressors import LeastSquares
from lightning_compress.schedules import Schedule

__all__ = ["Item", "Term", "always"]


@dataclass(frozen=True)
class Item:
    """Takes one entry out of a batch: ``batch[key]``.

    Args:
        key: position in a tuple or name in a mapping.

    >>> Item("mask")({"mask": 3})
    3
    """

    key: int | str

    def __call__(self, batch: Any) -> Any:
        return batch[self.key]


def always(progress: float) -> float:
    """The schedule of full strength throughout; a function, because YAML cannot hold a default that is an object.

    >>> always(0.0)
    1.0
    """
    return 1.0


@dataclass(frozen=True)
class Term:
    """One term of the distillation objective: ``weight * schedule(progress) * loss(student, teacher)``.

    Layers are named as in ``named_modules()`` of the student and the teacher that you hand over. Two patterns
    pair the layers they match in order, and must match equally many; the term is the mean over the pairs.

    Args:
        loss: (student, teacher) -> scalar, as in ``losses``.
        student: shell pattern of the student's layers; ``""`` is the network's output.
        teacher: shell pattern of the teacher's layers; ``""`` is its output.
        weight: factor of the loss, at least 0.
        schedule: progress of the run in [0, 1] -> strength in [0, 1].
        regressor: maps the student's features to the teacher's where their shapes differ.
        mask: batch -> what to compare, boolean of the outputs' leading dimensions: the tokens that are no
            padding.
        labels: batch -> a third argument for the loss: the true classes, for ``losses.decoupled``.

    Raises:
        ValueError: ``weight`` is negative.
        TypeError: ``loss`` or ``schedule`` is a name, a number or a class.

    >>> from lightning_compress.distillation import losses
    >>> Term(losses.mse, student="layer?", teacher="layer?", weight=0.1).name
    'mse/layer?'
    """

    loss: Loss = soft_targets
    student: str = ""
    teacher: str = ""
    weight: float = 1.0
    schedule: Schedule = always
    regressor: LeastSquares | None = None
    mask: Callable[[Any], Any] | None = None
    labels: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        check_code(loss=self.loss, schedule=self.schedule)
        if not self.weight >= 0:
            raise ValueError(f"need weight >= 0, got weight={self.weight}")

    @property
    def name(self) -> str:
        """Under which the term is logged: its loss and its layers."""
        function = getattr(self.loss, "func", self.loss)
        loss = getattr(function, "__name__", type(function).__name__)
        return f"{loss}/{self.student}" if self.student else loss

    def arguments(self, student: Tensor, teacher: Tensor, batch: Any) -> list[Tensor]:
        """What the loss is called with: masked student and teacher, and the labels if it needs them."""
        tensors = [student, teacher, *([self.labels(batch)] if self.labels else [])]
        if self.mask is None:
            return tensors
        mask = self.mask(batch).bool()
        if any(tensor.shape[: mask.ndim] != mask.shape for tensor in tensors):
            raise ValueError(
                f"need a mask of the leading dimensions of what it masks, got {tuple(mask.shape)} "
                f"for {', '.join(str(tuple(tensor.shape)) for tensor in tensors)}"
            )
        return [tensor[mask] for tensor in tensors]
