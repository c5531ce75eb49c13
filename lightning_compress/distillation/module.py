"""DistillationModule: any LightningModule, taught while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torchmetrics import Metric

from lightning_compress.distillation import initialization
from lightning_compress.distillation.losses import Loss
from lightning_compress.distillation.objectives import Objective
from lightning_compress.distillation.settings import Settings
from lightning_compress.distillation.students import LOG_PREFIX, Taught, taught
from lightning_compress.distillation.teachers import Teacher
from lightning_compress.distillation.terms import Term
from lightning_compress.lightnings import LightningModule, ModuleBase

__all__ = ["DistillationModule"]


class DistillationModule(ModuleBase):
    """A student with a teacher: any LightningModule, with distillation losses added to its training step.

    The module shares the student's state instead of wrapping it: parameters, buffers, submodules, hyperparameters,
    optimizers and every attribute are the student's own, under the student's names. So a checkpoint is a checkpoint of
    the student (``Student.load_from_checkpoint`` reads it), and logging, manual optimization, tuners and other
    callbacks work as on the student. The teacher is no part of the module. After ``fit``, ``student`` holds the trained
    weights.

    The student's ``training_step`` runs unchanged. The calls of its network are recorded, the teacher answers the same
    inputs, and the loss (the one returned, or the one given to ``manual_backward``) becomes

        task_weight * loss + alpha * sum_k weight_k * schedule_k(progress) * loss_k(student, teacher)

    with ``task_weight = 1`` and ``alpha = 0.3`` by default; with ``alpha=`` alone, ``task_weight = 1 - alpha``. Each
    part is logged as ``distillation/<loss>``, the student's own loss as ``distillation/task``.

    Args:
        student: any LightningModule.
        teacher: a module that takes the inputs of the student's network; or ``EMA()``, or a ``Cache``.
        losses: losses of the outputs, or a :class:`~lightning_compress.distillation.Term` for each comparison; None for
            ``Decoupled(beta=2.0, temperature=2.0)`` of the outputs, if the batch holds integer labels for them.
        alpha: weight of the teacher's losses, in [0, 1]; None for 0.3 beside the whole loss of the student.
        task_weight: weight of the student's own loss, at least 0; None for ``1 - alpha``, or 1 where alpha is None.
        network: name of the student's submodule whose calls are taught, for a ``training_step`` that calls
            ``self.net(x)``; None for one that calls ``self(x)``.
        metrics: of (student, teacher) outputs; updated in validation, where the teacher then runs as well, and logged
            as ``distillation/<name of the class>``.
        initialize: name of a student's layer -> name of the teacher's layer that it starts from; see
            :func:`~lightning_compress.distillation.initialization.initialize`.

    Raises:
        TypeError: the student is no plain LightningModule, or an argument is of another kind.
        ValueError: an argument is out of its range, or a layer to initialize does not fit the teacher's.

    Example:
        ```python
        module = DistillationModule(Student(), teacher, losses=[losses.SoftTargets(temperature=2.0)], alpha=0.9)
        trainer.fit(module, datamodule)
        ```

    Paper: Hinton et al., "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531 (2015).
    """

    student: LightningModule
    objective: Objective

    def __init__(
        self,
        student: LightningModule,
        teacher: nn.Module | Teacher,
        *,
        losses: Sequence[Term | Loss] | None = None,
        alpha: float | None = None,
        task_weight: float | None = None,
        network: str | None = None,
        metrics: Sequence[Metric] = (),
        initialize: Mapping[str, str] | None = None,
    ) -> None:
        settings = Settings(
            teacher,
            losses=losses,
            alpha=alpha,
            task_weight=task_weight,
            network=network,
            metrics=metrics,
            initialize=initialize,
        )
        _check_student(student)
        if "_parameters" in vars(student):  # a copy of this object begins with a student that is still empty
            settings.check_student(student)
        if settings.initialize:
            initialization.initialize(student, settings.network_of_teacher(), settings.initialize)
        # In place of super().__init__(): this object is a second view of the student's state.
        object.__setattr__(self, "__dict__", student.__dict__)
        self.__class__ = _class_of_view(type(self), student, Objective(settings))

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (self.student, self.objective.settings)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if state := self.objective.state_dict():
            checkpoint[LOG_PREFIX] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.objective.load_state_dict(checkpoint.get(LOG_PREFIX, {}))


def _class_of_view(front: type[DistillationModule], student: LightningModule, objective: Objective) -> type[Any]:
    """The class of a second view of ``student``: ``front``, and a taught class derived from the student's.

    The class is made at run time since the student's class is known only then, and it has to derive from that class:
    ``isinstance(module, Student)`` holds, and Lightning finds the hooks that the student overrides. A wrapper that
    passes attributes on would show its own class, and would prefix every name in a checkpoint with ``student.``.

    Args:
        front: ``DistillationModule`` or a class derived from it.
        student: the module whose state is shared.
        objective: the losses to add.
    """
    return _OfOneLightning(front.__name__, (front, taught(type(student), objective, student)), {"student": student})


class _OfOneLightning(type):
    """Makes classes of one Lightning, that of their last base, from a first base that belongs to both.

    Under ``DistillationModule`` a class would find hooks and logging of the one Lightning in the Trainer of the other.
    """

    def mro(cls) -> list[type]:
        own = cls.__bases__[-1].__mro__
        return [one for one in super().mro() if one in own or one not in ModuleBase.__mro__]


def _rebuilt(student: LightningModule, settings: Settings) -> DistillationModule:
    arguments = dict(vars(settings), initialize=None)  # a copy keeps its trained weights
    return DistillationModule(student, **arguments)


def _check_student(student: object) -> None:
    if isinstance(student, type):
        raise TypeError(f"need student as an object, got the class {student.__name__}: write {student.__name__}(...)")
    if not isinstance(student, LightningModule) or isinstance(student, Taught):
        raise TypeError(f"need student as a LightningModule that has no teacher yet, got {type(student).__name__}")
    if hasattr(student, "student"):
        raise ValueError("need a student without an attribute named 'student': it would hide the student itself")
