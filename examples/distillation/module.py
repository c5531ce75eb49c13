"""ResNets whose checkpoints load without arguments."""

from __future__ import annotations

from examples.fashion_mnist import FashionClassifier, ResNet

__all__ = ["ResNetClassifier"]


class ResNetClassifier(FashionClassifier):
    """A ResNet on Fashion-MNIST; its depth is a hyperparameter, so a checkpoint alone rebuilds it.

    Args:
        depth: 8, 14, 20, ...
        lr: highest learning rate.
        weight_decay: weight decay of all parameters.
    """

    def __init__(self, depth: int = 8, lr: float = 0.2, weight_decay: float = 5e-4) -> None:
        super().__init__(ResNet(depth), lr, weight_decay)
