"""DistillationModule: any LightningModule, taught while it trains."""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Mapping, Sequence
from contextvars import Context
from functools import wraps
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics import Metric

from lightning_compress.distillation.initialization import initialize as initialize_
from lightning_compress.distillation.objectives import Objective
from lightning_compress.distillation.teachers import Teacher
from lightning_compress.distillation.terms import Term

__all__ = ["DistillationModule", "from_checkpoint", "taught"]

_KEY = "distillation"


class DistillationModule(LightningModule):
    """A student with a teacher: any LightningModule, its training step with distillation losses added.

    It shares the student's state instead of wrapping it: parameters, buffers, submodules, hyperparameters,
    optimizers and every attribute are the student's own, under the student's names. So a checkpoint is a
    checkpoint of the student (``Student.load_from_checkpoint`` needs no help), logging, manual optimization,
    tuners and other callbacks meet the class that they know, and the teacher appears nowhere. What the
    student trains, ``student`` holds.

    The student's ``training_step`` runs as it is. The calls of its network are recorded, the teacher answers
    the same inputs, and the loss (the one returned, or the one given to ``manual_backward``) becomes

        (1 - alpha) * loss + alpha * sum_k weight_k * schedule_k(progress) * loss_k(student, teacher)

    Each part is logged as ``distillation/<term>``, the student's own loss as ``distillation/task``.

    Args:
        student: any LightningModule.
        teacher: a module that takes the inputs of the student's network; or ``EMA()``, or a ``Cache``.
        losses: what is compared; None for soft targets of the outputs.
        alpha: share of the teacher in the loss, in [0, 1].
        network: the student's submodule whose calls are taught, for a ``training_step`` that calls
            ``self.net(x)``; ``""`` for one that calls ``self(x)``.
        metrics: of (student, teacher) outputs; updated in validation, where the teacher then runs as well,
            and logged as ``distillation/<class name>``.
        initialize: name of a student's layer -> name of a teacher's layer that it starts from; see
            :func:`~lightning_compress.distillation.initialization.initialize`.

    Raises:
        TypeError: the student is no plain LightningModule, or an argument is of another kind.
        ValueError: an argument is out of its range, or a layer to initialize does not fit the teacher's.

    Example:
        ```python
        module = DistillationModule(Student(), teacher, losses=[Term(SoftTargets(2.0))], alpha=0.9)
        trainer.fit(module, datamodule)
        ```

    Paper: Hinton et al., "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531
    (2015).
    """

    student: LightningModule
    objective: Objective

    def __init__(
        self,
        student: LightningModule,
        teacher: nn.Module | Teacher,
        losses: Sequence[Term] | None = None,
        alpha: float = 0.9,
        network: str = "",
        metrics: Sequence[Metric] = (),
        initialize: Mapping[str, str] | None = None,
    ) -> None:
        if not isinstance(student, LightningModule) or isinstance(student, Taught):
            raise TypeError(f"need a plain LightningModule as student, got {type(student).__name__}")
        if hasattr(student, "student"):
            raise ValueError("need a student without an attribute named 'student': it would hide the student itself")
        objective = Objective(teacher, losses, alpha, network, metrics)
        if initialize:
            initialize_(student, objective.network_of_teacher(), initialize)
        bases = (type(self), taught(type(student), objective))
        # No super().__init__(): this object is a second view of the student's state, under a class that
        # teaches.
        object.__setattr__(self, "__dict__", student.__dict__)
        self.__class__ = type(type(self).__name__, bases, {"student": student})

    def __reduce__(self) -> tuple[type[DistillationModule], tuple[Any, ...]]:
        one = self.objective
        return DistillationModule, (self.student, one.teacher, one.terms, one.alpha, one.network, one.metrics)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        if state := self.objective.state_dict():
            checkpoint[_KEY] = state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.objective.load_state_dict(checkpoint.get(_KEY, {}))


class Taught(LightningModule):
    """Marks the classes that ``taught`` makes."""

    objective: Objective
    untaught: type[LightningModule]

    def _mix(self, loss: Tensor) -> Tensor:
        """The objective for the network's calls up to here, its parts logged."""
        mixed, parts = self.objective.mix(loss, _progress(self.trainer))
        if parts:
            values = {"task": loss, **parts}
            self.log_dict({f"{_KEY}/{name}": value.detach() for name, value in values.items()})
        return mixed


def taught(cls: type[LightningModule], objective: Objective) -> type[LightningModule]:
    """The class ``cls`` with a training step that distils.

    A copy or a pickle of an instance is of ``cls`` again, without the teacher.

    Args:
        cls: class of the student.
        objective: what is taught.
    """
    base: Any = cls

    # Lightning reads the signature of a step (batch_idx or not, dataloader_iter) and whether there is one,
    # through what wraps() leaves behind.
    class TaughtStudent(Taught, base):  # type: ignore[misc]
        @wraps(base.training_step)
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            student = _student(self)
            objective.attach(student, self.trainer.precision_plugin.convert_module)
            objective.teacher.follow(student, self.trainer.global_step)
            with objective.recording(next(iter((*args, *kwargs.values())))):
                output = base.training_step(self, *args, **kwargs)
                if output is not None and self.automatic_optimization:
                    output = _replaced(output, self._mix)
            objective.check_called()
            return output

        def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
            super().manual_backward(self._mix(loss), *args, **kwargs)

        @wraps(base.validation_step)
        def validation_step(self, *args: Any, **kwargs: Any) -> Any:
            if not objective.metrics:
                return base.validation_step(self, *args, **kwargs)
            objective.attach(_student(self), self.trainer.precision_plugin.convert_module)
            with objective.recording(next(iter((*args, *kwargs.values())))):
                output = base.validation_step(self, *args, **kwargs)
                objective.measure()
            return output

        def on_validation_epoch_end(self) -> None:
            super().on_validation_epoch_end()
            self.log_dict({f"{_KEY}/{name}": value for name, value in objective.measured().items()}, sync_dist=True)

        def teardown(self, stage: str) -> None:
            objective.detach()
            super().teardown(stage)

        def __reduce__(self) -> tuple[Any, ...]:
            return copyreg.__newobj__, (base,), self.__getstate__()  # type: ignore[attr-defined]

    TaughtStudent.objective, TaughtStudent.untaught = objective, cls
    TaughtStudent.__name__ = cls.__name__
    return TaughtStudent


def from_checkpoint(cls: type[LightningModule], path: str) -> LightningModule:
    """A trained teacher from a Lightning checkpoint, for YAML.

    Args:
        cls: class of the teacher.
        path: the checkpoint.

    Example:
        ```yaml
        teacher:
          class_path: lightning_compress.distillation.from_checkpoint
          init_args: {cls: my.ResNet20, path: resnet20.ckpt}
        ```
    """
    # In a context of its own: LightningCLI tells every module built meanwhile the hyperparameters of its model.
    return Context().run(cls.load_from_checkpoint, path, map_location="cpu")


def _student(module: LightningModule) -> LightningModule:
    """Whose copy is without a teacher: the student of a DistillationModule, else the module itself."""
    return module.student if isinstance(module, DistillationModule) else module


def _replaced(output: Any, mix: Callable[[Tensor], Tensor]) -> Any:
    """What a training step returned, with its loss mixed."""
    if isinstance(output, Mapping):
        return {**output, "loss": mix(output["loss"])}
    return mix(output)


def _progress(trainer: Trainer) -> float:
    return min(1.0, trainer.global_step / max(1.0, trainer.estimated_stepping_batches))
