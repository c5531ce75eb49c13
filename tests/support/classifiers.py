"""Small modules that the tests of quantization train."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from examples.loaders import TensorLoader
from tests.support import runs


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, width: int = 8, channels: int = 1) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.blocks = nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2), Block(2 * width, 4 * width, 2))
        self.fc = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.blocks(self.stem(x)).mean((2, 3)))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


class Classifier(LightningModule):
    def __init__(self, net: nn.Module | None = None, lr: float = 0.05) -> None:
        super().__init__()
        self.net = mlp() if net is None else net
        self.lr = lr

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        self.log("val_loss", F.cross_entropy(self(batch[0]), batch[1]))

    test_step = validation_step

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.lr, momentum=0.9)


class Conv(Classifier):
    """A LightningModule without arguments, to be loaded by class."""

    def __init__(self) -> None:
        super().__init__(ResNet())


class Dense(Classifier):
    """A LightningModule without arguments, to be loaded by class."""

    def __init__(self) -> None:
        super().__init__()


def loader(batches: int = 8, size: int = 16, channels: int = 1) -> TensorLoader:
    """Ten classes, each a noisy pattern of 8 x 8, in a fixed order; a run can resume in the middle of an epoch."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(10, channels, 8, 8, generator=generator)
    y = torch.randint(10, (batches * size,), generator=generator)
    images = patterns[y] + 0.5 * torch.randn(len(y), channels, 8, 8, generator=generator)
    return TensorLoader(images, y, batch_size=size)


trainer = partial(runs.trainer, max_epochs=2)


def fit(module: LightningModule, *callbacks: Callback, ckpt_path: Any = None, **settings: Any) -> Trainer:
    """Train a module with seed 0, validating after each of two epochs."""
    seed_everything(0, verbose=False)
    run = trainer(*callbacks, **settings)
    run.fit(module, loader(), loader(2), ckpt_path=ckpt_path)
    return run
