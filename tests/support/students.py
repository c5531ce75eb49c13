"""Small students and data, of every shape that a training step has in the wild."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.classification import MulticlassAccuracy

from examples.loaders import TensorLoader
from lightning_compress.distillation import LeastSquares, Term, losses
from tests.support import runs

HINTS = (
    losses.SoftTargets(2.0),
    Term(losses.mse, student_layers="net.norm", teacher_layers="norm", regressor=LeastSquares()),
)


class Net(nn.Module):
    def __init__(self, width: int = 4, dropout: float = 0.2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.drop = nn.Dropout(dropout)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.drop(self.norm(self.conv(x)).relu().mean((2, 3))))


class Student(LightningModule):
    """Loss as a tensor."""

    def __init__(self, width: int = 4, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = Net(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def loss(self, batch: Any) -> Tensor:
        x, y = batch
        return F.cross_entropy(self(x), y)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        loss = self.loss(batch)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val_loss", self.loss(batch), sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams.lr)
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class DictStudent(Student):
    """Loss in a dict, no batch_idx, hooks and clipping of its own."""

    def training_step(self, batch: Any) -> Any:
        return {"loss": self.loss(batch), "extra": torch.ones(1)}

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.log("extra", outputs["extra"].sum())

    def configure_gradient_clipping(self, optimizer: Any, **kwargs: Any) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=0.5, gradient_clip_algorithm="norm")


class MeteredStudent(Student):
    """Logs a torchmetric, and calls its network past its own forward."""

    def __init__(self, width: int = 4, lr: float = 0.05) -> None:
        super().__init__(width, lr)
        self.accuracy = MulticlassAccuracy(3)

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        x, y = batch
        logits = self.net(x)
        self.accuracy(logits, y)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        return F.cross_entropy(logits, y)


class ManualStudent(Student):
    """Manual optimization with two optimizers."""

    def __init__(self, width: int = 4, lr: float = 0.05) -> None:
        super().__init__(width, lr)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        body, head = self.optimizers()
        loss = self.loss(batch)
        body.zero_grad()
        head.zero_grad()
        self.manual_backward(loss)
        body.step()
        head.step()
        self.log("train_loss", loss)

    def configure_optimizers(self) -> Any:
        body = [*self.net.conv.parameters(), *self.net.norm.parameters()]
        return [torch.optim.SGD(body, lr=0.1), torch.optim.SGD(self.net.head.parameters(), lr=0.1)]


def data(samples: int = 32) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    return TensorDataset(
        torch.randn(samples, 1, 8, 8, generator=generator),
        torch.randint(0, 3, (samples,), generator=generator),
    )


def loader(samples: int = 32, **kwargs: Any) -> DataLoader:
    return DataLoader(data(samples), batch_size=8, **kwargs)


def resumable() -> TensorLoader:
    """The batches of ``loader()``, continued where a checkpoint in the middle of an epoch left off."""
    return TensorLoader(*data().tensors, batch_size=8)


trainer = partial(runs.trainer, max_epochs=1, log_every_n_steps=1)


def teacher(seed: int = 7) -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(width=6)


def seeded(cls: type[Student] = Student, **kwargs: Any) -> Student:
    torch.manual_seed(0)
    return cls(**kwargs)
