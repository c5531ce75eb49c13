"""DistillationCallback: teaches the module that the Trainer already trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torchmetrics import Metric

from lightning_compress.distillation.initialization import initialize as initialize_
from lightning_compress.distillation.module import Taught, taught
from lightning_compress.distillation.objectives import Objective
from lightning_compress.distillation.teachers import Teacher
from lightning_compress.distillation.terms import Term

__all__ = ["DistillationCallback"]


class DistillationCallback(Callback):
    """The teacher of ``DistillationModule`` as a callback, for a module that is to stay as it is.

    | when | what happens |
    | --- | --- |
    | ``setup`` of a fit | the module gets a class derived from its own whose training step distils |
    | ``setup`` at step 0 | layers named in ``initialize`` are copied; a checkpoint that is resumed overrides them |
    | checkpoint | holds the plain module; the callback's state is that of ``EMA`` and regressors |
    | end or failure of the fit | the module gets its class back |

    The arguments are those of ``DistillationModule``, where they are described.

    Args:
        teacher: a module that takes the inputs of the student's network; or ``EMA()``, or a ``Cache``.
        losses: what is compared; None for soft targets of the outputs.
        alpha: share of the teacher in the loss, in [0, 1].
        network: the student's submodule whose calls are taught; ``""`` is its own ``forward``.
        metrics: of (student, teacher) outputs, updated in validation.
        initialize: name of a student's layer -> name of a teacher's layer that it starts from.

    Raises:
        TypeError: an argument is of another kind.
        ValueError: an argument is out of its range.

    Example:
        ```python
        Trainer(callbacks=[DistillationCallback(teacher, losses=[Term(SoftTargets(temperature=4.0))])])
        ```

    >>> DistillationCallback(nn.Linear(2, 2), alpha=0.5).state_dict()
    {}
    """

    def __init__(
        self,
        teacher: nn.Module | Teacher,
        losses: Sequence[Term] | None = None,
        alpha: float = 0.9,
        network: str = "",
        metrics: Sequence[Metric] = (),
        initialize: Mapping[str, str] | None = None,
    ) -> None:
        self._objective = Objective(teacher, losses, alpha, network, metrics)
        self._initialize = dict(initialize or {})
        if self._initialize:
            self._objective.network_of_teacher()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        if isinstance(pl_module, Taught):
            raise ValueError(
                "need one teacher for a module, got two: use DistillationModule or one DistillationCallback"
            )
        if "training_step" in vars(pl_module):
            raise ValueError(
                "need a training_step of the module's class to teach it, got one that was set on the instance, as "
                "torch.compile(module) does: compile the network in it instead, module.network.compile()"
            )
        if self._initialize and trainer.global_step == 0:
            initialize_(pl_module, self._objective.network_of_teacher(), self._initialize)
        pl_module.__class__ = taught(type(pl_module), self._objective)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._release(pl_module)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._release(pl_module)

    def state_dict(self) -> dict[str, Any]:
        return self._objective.state_dict()

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._objective.load_state_dict({})  # the Trainer hands over no state that is empty

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._objective.load_state_dict(state_dict)

    def _release(self, pl_module: LightningModule) -> None:
        if isinstance(pl_module, Taught) and pl_module.objective is self._objective:
            self._objective.detach()
            pl_module.__class__ = pl_module.untaught  # type: ignore[assignment]
