"""ResNet-8 taught by ResNet-20 on Fashion-MNIST."""

from examples.distillation.module import ResNetClassifier

__all__ = ["ResNetClassifier"]
