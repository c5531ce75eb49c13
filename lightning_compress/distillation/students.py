"""Students: classes whose training step also learns from a teacher.

Teaching changes the class of a module, not its state, because Lightning asks the class: which hooks it overrides,
whether its ``training_step`` takes ``batch_idx``, whose checkpoints it reads.
"""

from __future__ import annotations

import copyreg
from collections.abc import Callable, Mapping
from functools import partial, wraps
from typing import Any

from torch import Tensor

from lightning_compress.distillation.objectives import Objective
from lightning_compress.distillation.terms import always
from lightning_compress.lightnings import LightningModule
from lightning_compress.training.progress import Progress

__all__ = ["LOG_PREFIX", "Taught", "taught"]

LOG_PREFIX = "distillation"


class Taught:
    """Mark of the classes that ``taught`` makes; the student's class says of which Lightning they are.

    Attributes:
        objective: the objective of the class.
        untaught: the class of the student.
    """

    objective: Objective
    untaught: type[LightningModule]


def taught(
    cls: type[LightningModule], objective: Objective, student: LightningModule | None = None
) -> type[LightningModule]:
    """A class derived from ``cls`` whose training step distills.

    A copy or a pickle of an instance is of ``cls`` again, without the teacher.

    Args:
        cls: class of the student.
        objective: the losses to add.
        student: the student that an instance stands for; None if the instance is the student.
    """
    base: Any = cls

    # Lightning reads from the signature of a step whether it takes batch_idx; wraps() passes the signature on.
    class TaughtStudent(Taught, base):  # type: ignore[misc]
        @wraps(base.training_step)
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            plain = self if student is None else student
            objective.attach(plain, self.trainer.precision_plugin.convert_module)
            objective.teacher.follow(plain, self.trainer.global_step)
            objective.begin_batch(lambda: self.trainer.fit_loop.epoch_loop.batch_progress.total.processed)
            with objective.recording(_batch(args, kwargs)):
                output = base.training_step(self, *args, **kwargs)
                if output is not None and self.automatic_optimization:
                    output = _with_loss(output, partial(_mix, self, objective))
            objective.check_called()
            return output

        def manual_backward(self, loss: Tensor, *args: Any, **kwargs: Any) -> None:
            super().manual_backward(_mix(self, objective, loss), *args, **kwargs)

        @wraps(base.validation_step)
        def validation_step(self, *args: Any, **kwargs: Any) -> Any:
            if not objective.settings.metrics:
                return base.validation_step(self, *args, **kwargs)
            plain = self if student is None else student
            objective.attach(plain, self.trainer.precision_plugin.convert_module)
            with objective.recording(_batch(args, kwargs)):
                output = base.validation_step(self, *args, **kwargs)
                objective.update_metrics()
            return output

        def on_validation_epoch_end(self) -> None:
            super().on_validation_epoch_end()
            values = {f"{LOG_PREFIX}/{name}": value for name, value in objective.compute_metrics().items()}
            self.log_dict(values, sync_dist=True)

        def teardown(self, stage: str) -> None:
            objective.detach()
            super().teardown(stage)

        def __reduce__(self) -> tuple[Any, ...]:
            return copyreg.__newobj__, (base,), self.__getstate__()  # type: ignore[attr-defined]

    TaughtStudent.objective, TaughtStudent.untaught = objective, cls
    TaughtStudent.__name__ = cls.__name__
    return TaughtStudent


def _mix(module: Any, objective: Objective, loss: Tensor) -> Tensor:
    """The objective for the network's calls so far; logs its parts."""
    mixed, parts = objective.mix(loss, _progress(module, objective))
    if parts:
        values = {"task": loss, **parts}
        module.log_dict({f"{LOG_PREFIX}/{name}": value.detach() for name, value in values.items()})
    return mixed


def _batch(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The first argument of a step."""
    return next(iter((*args, *kwargs.values())))


def _with_loss(output: Any, mix: Callable[[Tensor], Tensor]) -> Any:
    """The output of a training step, with its loss mixed."""
    if isinstance(output, Mapping):
        return {**output, "loss": mix(output["loss"])}
    return mix(output)


def _progress(module: Any, objective: Objective) -> float:
    """Fraction of the run that is done; 1 where no schedule asks for it, as the run may have no length then."""
    if all(term.schedule is always for term in objective.settings.losses):
        return 1.0
    progress = Progress(module.trainer, module)
    progress.start()
    return progress.fraction()
