"""Settings: the arguments that DistillationModule and DistillationCallback share, checked once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

from torch import nn
from torchmetrics import Metric

from lightning_compress.arguments import check_names, check_number, shown
from lightning_compress.distillation.losses import Decoupled
from lightning_compress.distillation.teachers import Live, Teacher
from lightning_compress.distillation.terms import Term

__all__ = ["DEFAULT", "Settings"]

DEFAULT = Term(Decoupled(beta=2.0, temperature=2.0))
"""The term of a student without losses: for class scores. It is known by identity."""


@dataclass(frozen=True)
class Settings:
    """Teacher, losses and weights of an objective; the fields hold the checked values.

    Args:
        teacher: a module that takes the inputs of the student's network, or a ``Teacher`` such as ``EMA()``.
        losses: terms, or losses of the outputs; None for ``Decoupled(beta=2.0, temperature=2.0)`` of the outputs, if
            the batch holds integer labels for them.
        alpha: weight of the teacher's losses, in [0, 1]; None for 0.3 beside the whole loss of the student.
        task_weight: weight of the student's own loss, at least 0; None for ``1 - alpha``, or 1 where alpha is None.
        network: name of the student's submodule whose calls are taught; None for the student's own ``forward``.
        metrics: of (student, teacher) outputs, updated in validation.
        initialize: name of a student's layer -> name of the teacher's layer that it starts from.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: an argument is out of its range, or ``initialize`` needs a teacher that is a module.

    >>> Settings(nn.Identity(), alpha=0.3).losses
    (Term(loss=Decoupled(alpha=1.0, beta=2.0, temperature=2.0)),)
    """

    teacher: Any
    _: KW_ONLY
    losses: Any = None
    alpha: float | None = None
    task_weight: float | None = None
    network: str | None = None
    metrics: Any = ()
    initialize: Any = None

    def __post_init__(self) -> None:
        if self.alpha is not None:
            check_number(alpha=self.alpha)
            if not 0 <= self.alpha <= 1:
                raise ValueError(f"need 0 <= alpha <= 1, got alpha={self.alpha}: Term(weight=...) takes any factor")
        if self.task_weight is not None:
            check_number(task_weight=self.task_weight)
            if not self.task_weight >= 0:
                raise ValueError(f"need task_weight >= 0, got task_weight={self.task_weight}")
        if self.network is not None and not isinstance(self.network, str):
            raise TypeError(f"need network as the name of a submodule, got {shown(self.network)}")
        checked = {
            "teacher": _teacher(self.teacher),
            "losses": _terms((DEFAULT,) if self.losses is None else self.losses),
            "metrics": _metrics(self.metrics),
            "initialize": _layers(self.initialize),
        }
        for name, value in checked.items():
            object.__setattr__(self, name, value)  # the way around frozen
        if self.initialize:
            self.network_of_teacher()

    @property
    def weights(self) -> tuple[float, float]:
        """The weight of the student's own loss, and that of the teacher's losses."""
        alpha = 0.3 if self.alpha is None else self.alpha
        task = 1.0 if self.alpha is None else 1 - alpha
        return task if self.task_weight is None else self.task_weight, alpha

    def check_student(self, student: nn.Module) -> None:
        """Refuse a student that shares parameters with its teacher.

        Raises:
            ValueError: it does; ``EMA`` and ``Base`` are made of the student on purpose.
        """
        if type(self.teacher) is Live:
            self.teacher.check_apart(student)

    def network_of_teacher(self) -> nn.Module:
        """The module that teaches, to read weights from.

        Raises:
            ValueError: the teacher is no module; ``Cache`` and ``EMA`` have no weights to start from.
        """
        if type(self.teacher) is not Live:
            raise ValueError(
                f"need a module as teacher to initialize from, got {self.teacher!r}: "
                "call initialize(student, network, layers) before, with the network to start from"
            )
        return self.teacher.module


def _teacher(teacher: object) -> Teacher:
    if isinstance(teacher, type):
        raise TypeError(f"need teacher as an object, got the class {teacher.__name__}: write {teacher.__name__}(...)")
    if isinstance(teacher, nn.Module):
        return Live(teacher)
    if isinstance(teacher, Teacher):
        return teacher
    raise TypeError(
        f"need teacher as a module, or as EMA() or Cache(path), got {teacher!r}: "
        "from_checkpoint(cls, path) loads a module"
    )


def _terms(losses: object) -> tuple[Term, ...]:
    if isinstance(losses, str | Mapping) or not isinstance(losses, Iterable):
        shown = losses.__name__ if callable(losses) and hasattr(losses, "__name__") else repr(losses)
        raise TypeError(f"need losses as a list of losses or terms, got {losses!r}: write [{shown}]")
    losses = tuple(losses)
    if not losses:
        raise ValueError(f"need at least one loss, got losses={losses!r}")
    return tuple(loss if isinstance(loss, Term) else Term(loss) for loss in losses)


def _metrics(metrics: object) -> tuple[Metric, ...]:
    if not isinstance(metrics, Sequence) or isinstance(metrics, str):
        raise TypeError(f"need metrics as a list, got {shown(metrics)}: write [Agreement()]")
    for metric in metrics:
        if isinstance(metric, type):
            raise TypeError(f"need metrics as objects, got the class {metric.__name__}: write {metric.__name__}()")
        if not isinstance(metric, Metric):
            raise TypeError(f"need metrics of torchmetrics, got {shown(metric)}")
    return tuple(metrics)


def _layers(initialize: Mapping[str, str] | None) -> dict[str, str] | None:
    if initialize is None:
        return None
    check_names("{student's layer: teacher's layer}", initialize=initialize)
    return dict(initialize)
