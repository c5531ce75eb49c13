"""The same run in a Lightning Trainer, for peers that are callbacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F

from benchmarks.peers.recipe import Run

__all__ = ["Part", "RunModule", "fit", "plain"]


class Part:
    """The batches of one epoch of the Trainer."""

    def __init__(self, run: Run, first: int, steps: int) -> None:
        self._run, self._first, self._steps = run, first, steps

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self._run.batches(self._first, self._first + self._steps)


class RunModule(LightningModule):
    """The network of a run; its optimizer is that of the plain loop."""

    def __init__(self, run: Run, steps: int) -> None:
        super().__init__()
        self.model = run.model
        self._run, self._steps = run, steps

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.model(images)
        return logits

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self(images), labels)

    def train_dataloader(self) -> Part:
        return Part(self._run, self._steps * self.trainer.current_epoch, self._steps)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer, schedule = self._run.optimizer(self)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def fit(run: Run, callbacks: Sequence[Callback], steps: int | None = None) -> LightningModule:
    """Train with callbacks; an epoch of the Trainer has ``steps`` steps, by default one pass over the images."""
    steps = run.epoch_steps if steps is None else steps
    epochs = run.steps // steps
    keeps = []
    if run.keep is not None:
        keeps = [ModelCheckpoint(run.keep.parent, run.keep.stem, every_n_epochs=run.kept_step // steps, save_top_k=-1)]
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        callbacks=[*callbacks, *keeps],
        enable_checkpointing=bool(keeps),
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        reload_dataloaders_every_n_epochs=1,
    )
    module = RunModule(run, steps)
    trainer.fit(module, ckpt_path=run.resume, weights_only=False)
    return module


def plain(run: Run) -> LightningModule:
    """The run without a callback."""
    return fit(run, [])
