"""The hooks by which a weight method takes part in ``fit``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch.optim import Optimizer

from lightning_compress.processes import gather, shard
from lightning_compress.targets import Selection
from lightning_compress.training.method import Method
from lightning_compress.training.run import CompressionRun

__all__ = ["WeightCompression"]


class WeightCompression(Method, Callback):
    """A :class:`Method` as a callback: the base of every weight callback.

    All weight callbacks of a Trainer take part in one :class:`~.run.CompressionRun`; the first of them in the Trainer's
    list drives it, the others only answer its questions. Arguments and errors are those of :class:`Method`.

    ========================  =============================================================================
    ``on_fit_start``          choose the targets, refuse what cannot work, print the plan
    ``on_train_start``        take up the state of a checkpoint, project
    ``on_train_batch_start``  the first of an epoch: project what another callback wrote into the parameters
    ``on_before_optimizer_step``  the optimizer's parameters hold their latents until it has stepped
    ``on_train_batch_end``    update masks, codebooks, grids where due
    ``on_fit_end``            project a last time, drop the latents
    ========================  =============================================================================
    """

    _run: CompressionRun | None = None
    _loaded: Mapping[str, Any] | None = None

    @property
    def state_key(self) -> str:
        return self._generate_state_key(include=self.include, exclude=self.exclude)

    def state_dict(self) -> dict[str, Any]:
        tensors = {
            kind: {name: gather(tensor, self.targets[name].parameter) for name, tensor in by_name.items()}
            for kind, by_name in self.tensors().items()
        }
        return {"strength": self.strength, "tensors": tensors}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # Some strategies load before the model is built, some after: what is loaded waits for on_train_start.
        self._loaded = state_dict

    def restore(self) -> None:
        """Take up the state of the checkpoint, if there is one."""
        state, self._loaded = self._loaded, None
        if state is None:
            return
        self.strength = state["strength"]
        parameters = {name: target.parameter for name, target in self.targets.items()}
        self.load_tensors(
            {
                kind: {
                    name: shard(tensor.to(parameters[name].device), parameters[name]) for name, tensor in named.items()
                }
                for kind, named in state["tensors"].items()
            }
        )

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._awaited: set[str] = set()

    def wait_for(self, evidence: str, names: Sequence[str], *, silently: bool) -> None:
        """Go back to strength 0: the criterion reads what has not reached these names yet, and says so once."""
        self.strength = 0.0
        if not silently and not self._awaited.issuperset(names):
            self._awaited.update(names)
            rank_zero_warn(
                f"{type(self).__name__} waits: its criterion reads {evidence}, and none has reached {', '.join(names)} "
                "so far; add what is not trained to exclude, or choose criteria.magnitude"
            )

    @property
    def _driven(self) -> CompressionRun | None:
        """The run, if this callback is the one that drives it."""
        return self._run if self._run is not None and self._run.methods[0] is self else None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit":
            return
        self._loaded = None
        methods = [callback for callback in trainer.callbacks if isinstance(callback, WeightCompression)]  # type: ignore[attr-defined]
        if methods[0] is self:
            run = CompressionRun(methods, trainer, pl_module)
            for method in methods:
                method._run = run

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._driven:
            self._driven.load(checkpoint)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._driven:
            self._driven.begin()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.restore()
        if self._run and self._run.methods[-1] is self:
            self._run.start()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if batch_idx == 0 and self._driven:
            self._driven.adopt()

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if self._driven:
            self._driven.before_step(optimizer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._driven:
            self._driven.after_batch()

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._driven:
            self._driven.save(checkpoint)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._driven:
            self._driven.average.show()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._driven:
            self._driven.average.hide()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._driven:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, WeightCompression):
                    callback.restore()  # of a run that was over when it was resumed, and so was never started
            self._driven.settle()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if self._driven:
            self._driven.stop()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage == "fit" and self._driven:
            self._driven.stop()
