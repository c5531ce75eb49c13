"""The classifier of Fashion-MNIST: any network, one recipe."""

from __future__ import annotations

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import nn

from examples.classifier import Classifier

__all__ = ["FashionClassifier"]


class FashionClassifier(Classifier):
    """Trains ``model`` with SGD, Nesterov momentum 0.9 and a learning rate that rises and falls once.

    Paper: Smith and Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning Rates",
    https://arxiv.org/abs/1708.07120 (2017).

    Args:
        model: images ``(N, 1, 28, 28)`` -> logits ``(N, 10)``.
        lr: highest learning rate.
        weight_decay: weight decay of all parameters.
    """

    def __init__(self, model: nn.Module, lr: float = 0.1, weight_decay: float = 5e-4) -> None:
        super().__init__(model, classes=10, lr=lr)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        lr = self.hparams["lr"]
        optimizer = torch.optim.SGD(
            self.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=self.hparams["weight_decay"]
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, lr, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
