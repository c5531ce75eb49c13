"""Terms: one comparison of student and teacher, with its layers, its loss, its weight and its schedule."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any

from torch import Tensor

from lightning_compress.arguments import (
    check_code,
    check_function,
    check_number,
    check_tensor_answer,
    shown,
    signature_repr,
)
from lightning_compress.distillation.features import OUTPUT, LeastSquares
from lightning_compress.distillation.losses import Loss
from lightning_compress.schedules import Schedule, check_strengths

__all__ = ["Item", "Term", "always", "log_name"]


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
        try:
            return batch[self.key]
        except (IndexError, KeyError, TypeError) as error:
            there = list(batch) if isinstance(batch, Mapping) else f"{type(batch).__name__} of {len(batch)}"
            raise ValueError(f"need a batch with the entry {self.key!r}, got {shown(there)}") from error


def always(progress: float) -> float:
    """The schedule of full strength throughout; a function, since YAML cannot hold a default that is an object.

    >>> always(0.0)
    1.0
    """
    return 1.0


@dataclass(frozen=True, repr=False)
class Term:
    """One term of the objective: ``weight * schedule(progress) * loss(student, teacher)``.

    Layers are named as in ``named_modules()`` of the student and of the teacher. If a pattern matches several layers,
    the student's and the teacher's are paired in order, and the term is the mean over the pairs.

    Args:
        loss: (student, teacher) -> scalar; see :mod:`~lightning_compress.distillation.losses`.
        student_layers: shell pattern for the student's layers; by default its output.
        teacher_layers: shell pattern for the teacher's layers; by default its output.
        weight: factor of the loss, at least 0.
        schedule: progress of the run in [0, 1] -> strength in [0, 1].
        regressor: maps the student's features to the teacher's where their shapes differ.
        mask: batch -> the entries to compare, boolean, of the leading dimensions of the outputs: True for the tokens
            that are no padding, for example.
        labels: batch -> a third argument for the loss: the true classes, for ``losses.Decoupled``.

    Raises:
        TypeError: an argument is a name, a number or a class, or ``loss`` takes another number of arguments.
        ValueError: ``weight`` is negative.

    >>> from lightning_compress.distillation import losses
    >>> Term(losses.mse, student_layers="layer?", teacher_layers="layer?", weight=0.1)
    Term(loss=mse, student_layers='layer?', teacher_layers='layer?', weight=0.1)
    """

    loss: Loss
    _: KW_ONLY
    student_layers: str = OUTPUT
    teacher_layers: str = OUTPUT
    weight: float = 1.0
    schedule: Schedule = always
    regressor: LeastSquares | None = None
    mask: Callable[[Any], Any] | None = None
    labels: Callable[[Any], Any] | None = None

    def __post_init__(self) -> None:
        check_code(loss=self.loss, schedule=self.schedule, regressor=self.regressor, mask=self.mask, labels=self.labels)
        for name in ("student_layers", "teacher_layers"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"need {name} as a pattern of names, got {shown(getattr(self, name))}")
        check_number(weight=self.weight)
        if not self.weight >= 0:
            raise ValueError(f"need weight >= 0, got weight={self.weight}")
        if self.regressor is not None and not isinstance(self.regressor, LeastSquares):
            raise TypeError(f"need regressor as LeastSquares(...), got {shown(self.regressor)}")
        check_strengths(self.schedule)
        for name, function in {"mask": self.mask, "labels": self.labels}.items():
            if function is not None:
                check_function("batch", **{name: function})
        _check_loss(self.loss, self.labels is not None)

    def __repr__(self) -> str:
        return signature_repr(self)

    @property
    def name(self) -> str:
        """The name under which the term is logged: its loss and its layers."""
        loss = log_name(self.loss)
        return loss if self.student_layers == OUTPUT else f"{loss}/{self.student_layers}"

    def loss_arguments(self, student: Tensor, teacher: Tensor, batch: Any) -> list[Tensor]:
        """The arguments of the loss: masked student and teacher, and the labels if the loss takes them."""
        tensors = [student, teacher]
        if self.labels is not None:
            labels = self.labels(batch)
            check_tensor_answer("labels(batch)", self.labels, labels)
            tensors.append(labels)
        if self.mask is None:
            return tensors
        mask = self.mask(batch)
        check_tensor_answer("mask(batch)", self.mask, mask)
        mask = mask.bool()
        if any(tensor.shape[: mask.ndim] != mask.shape for tensor in tensors):
            raise ValueError(
                f"need a mask of the leading dimensions of the tensors that it masks, got {tuple(mask.shape)} "
                f"for {', '.join(str(tuple(tensor.shape)) for tensor in tensors)}"
            )
        return [tensor[mask] for tensor in tensors]


def log_name(code: Any) -> str:
    """The name of a function, or of an object's class, in the style of functions.

    >>> from functools import partial
    >>> from lightning_compress.distillation import losses
    >>> log_name(losses.SoftTargets()), log_name(partial(losses.mse))
    ('soft_targets', 'mse')
    """
    code = getattr(code, "func", code)
    name = getattr(code, "__name__", type(code).__name__)
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _check_loss(loss: Loss, has_labels: bool) -> None:
    """Refuse a loss that cannot be called with the tensors that its term passes."""
    names = ("student", "teacher", "labels") if has_labels else ("student", "teacher")
    if not callable(loss):
        raise TypeError(f"need loss as a function (student, teacher) -> scalar, got {loss!r}")
    try:
        inspect.signature(loss).bind(*names)
    except TypeError as error:
        fix = "leave labels= out" if has_labels else "give labels= in its Term, such as labels=Item(1)"
        raise TypeError(f"need a loss that takes ({', '.join(names)}), got {loss!r} ({error}): {fix}") from error
    except ValueError:  # some builtin callables have no signature
        return
