"""Linear classifiers that differ only in their loss."""

from __future__ import annotations

from abc import abstractmethod

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

__all__ = ["LinearSVM", "LogisticRegression", "hinge_loss"]


class _LinearClassifier(LightningModule):
    """Scores ``x W^T + b``, trained with Adam and a learning rate that falls to zero.

    Args:
        features: columns of the table.
        classes: number of classes.
        lr: first learning rate.
        l2: strength of the penalty ``l2 / 2 |W|^2``.
    """

    def __init__(self, features: int, classes: int, lr: float = 0.02, l2: float = 1e-3) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.linear = nn.Linear(features, classes)
        self.val_acc = MulticlassAccuracy(classes, average="micro")

    @abstractmethod
    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        """Scores ``(N, classes)``, labels ``(N,)`` -> mean loss."""

    def forward(self, rows: Tensor) -> Tensor:
        scores: Tensor = self.linear(rows)
        return scores

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        rows, labels = batch
        loss: Tensor = self.loss(self(rows), labels) + self.hparams["l2"] / 2 * self.linear.weight.square().sum()
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        rows, labels = batch
        self.val_acc(self(rows), labels)
        self.log("val_acc", self.val_acc, prog_bar=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class LogisticRegression(_LinearClassifier):
    """Multinomial logistic regression: cross-entropy of the softmax; arguments of a linear classifier."""

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(scores, labels)


class LinearSVM(_LinearClassifier):
    """Linear support vector machine, each class against the rest; arguments of a linear classifier."""

    def loss(self, scores: Tensor, labels: Tensor) -> Tensor:
        return hinge_loss(scores, labels)


def hinge_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Hinge loss of each class against the rest: ``mean_n sum_c max(0, 1 - t_nc s_nc)``, t = 1 for the label, else -1.

    Paper: Cortes and Vapnik, "Support-Vector Networks", Machine Learning 20 (1995).

    Args:
        scores: ``(N, classes)``.
        labels: ``(N,)``.

    >>> hinge_loss(torch.tensor([[2.0, -0.5]]), torch.tensor([0])).item()
    0.5
    """
    signs = 2 * F.one_hot(labels, scores.shape[1]) - 1
    return (1 - signs * scores).clamp(min=0).sum(1).mean()
