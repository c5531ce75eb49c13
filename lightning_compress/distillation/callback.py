"""DistillationCallback: teaches the module that the Trainer trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torchmetrics import Metric

from lightning_compress.arguments import signature_repr
from lightning_compress.distillation import initialization
from lightning_compress.distillation.losses import Loss
from lightning_compress.distillation.objectives import Objective
from lightning_compress.distillation.settings import Settings
from lightning_compress.distillation.students import Taught, taught
from lightning_compress.distillation.teachers import Teacher
from lightning_compress.distillation.terms import Term
from lightning_compress.lightnings import CallbackBase, LightningModule, Trainer, check_one_package, provisional_key
from lightning_compress.state_dicts import explain_loading

__all__ = ["DistillationCallback"]


class DistillationCallback(CallbackBase):
    """The teacher of :class:`~lightning_compress.distillation.DistillationModule` as a callback.

    | when | effect |
    | --- | --- |
    | ``setup`` of a fit | the module gets a class derived from its own whose training step distills |
    | ``setup`` at step 0 | layers named in ``initialize`` are copied; a resumed checkpoint overrides them |
    | checkpoint | holds the plain module; the callback's state is that of ``EMA`` and of regressors |
    | end or failure of the fit | the module gets its class back |

    The loss of a training step becomes

        task_weight * loss + alpha * sum_k weight_k * schedule_k(progress) * loss_k(student, teacher)

    with ``task_weight = 1`` and ``alpha = 0.3`` by default; with ``alpha=`` alone, ``task_weight = 1 - alpha``.

    Args:
        teacher: a module that takes the inputs of the student's network; or ``EMA()``, or a ``Cache``.
        losses: losses of the outputs, or a :class:`~lightning_compress.distillation.Term` for each comparison; None for
            ``Decoupled(beta=2.0, temperature=2.0)`` of the outputs, if the batch holds integer labels for them.
        alpha: weight of the teacher's losses, in [0, 1]; None for 0.3 beside the whole loss of the student.
        task_weight: weight of the student's own loss, at least 0; None for ``1 - alpha``, or 1 where alpha is None.
        network: name of the student's submodule whose calls are taught; None for the student's own ``forward``.
        metrics: of (student, teacher) outputs, updated in validation.
        initialize: name of a student's layer -> name of the teacher's layer that it starts from.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: an argument is out of its range.

    Example:
        ```python
        Trainer(callbacks=[DistillationCallback(teacher, losses=[losses.SoftTargets(temperature=2.0)])])
        ```

    >>> from lightning_compress.distillation import losses
    >>> DistillationCallback(nn.ReLU(), losses=[losses.SoftTargets()], alpha=0.5)
    DistillationCallback(teacher=ReLU(...), losses=(Term(loss=SoftTargets(temperature=4.0)),), alpha=0.5)
    """

    _set_up = False

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        *,
        losses: Sequence[Term | Loss] | None = None,
        alpha: float | None = None,
        task_weight: float | None = None,
        network: str | None = None,
        metrics: Sequence[Metric] = (),
        initialize: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = Settings(
            teacher,
            losses=losses,
            alpha=alpha,
            task_weight=task_weight,
            network=network,
            metrics=metrics,
            initialize=initialize,
        )
        self._objective = Objective(self.settings)

    def __repr__(self) -> str:
        return signature_repr(self, vars(self.settings))

    @property
    def state_key(self) -> str:
        return super().state_key if self._set_up else provisional_key(self)

    def report(self) -> dict[str, object]:
        """The teacher and its size, for the report of a run."""
        return self._objective.report()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._set_up = True
        explain_loading(trainer.strategy)
        if stage != "fit":
            return
        check_one_package(trainer, pl_module)
        if isinstance(pl_module, Taught):
            raise ValueError(
                "need one teacher for a module, got two: use DistillationModule or one DistillationCallback, "
                "and Ensemble([...]) for several networks"
            )
        if "training_step" in vars(pl_module):
            raise ValueError(
                "need a training_step of the module's class to teach it, got one that was set on the instance, as "
                "torch.compile(module) does: compile its network instead, module.network.compile()"
            )
        self.settings.check_student(pl_module)
        if self.settings.initialize and trainer.global_step == 0:
            initialization.initialize(pl_module, self.settings.network_of_teacher(), self.settings.initialize)
        pl_module.__class__ = taught(type(pl_module), self._objective)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release(pl_module)

    def state_dict(self) -> dict[str, Any]:
        return self._objective.state_dict()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._objective.load_state_dict({})  # the Trainer does not hand over an empty state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._objective.load_state_dict(state_dict)

    def _release(self, pl_module: LightningModule) -> None:
        if isinstance(pl_module, Taught) and pl_module.objective is self._objective:
            self._objective.detach()
            pl_module.__class__ = pl_module.untaught  # type: ignore[assignment]
