"""Weight sharing of LeNet-300-100 on Fashion-MNIST: accuracy of dense, shared, and sparse and shared training.

Run: ``python -m benchmarks.fashion_sharing FOLDER [epochs] [seeds]`` with the folder of the four idx ``.gz`` files.
"""

from __future__ import annotations

import gzip
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from lightning_compress.pruning import PruningCallback
from lightning_compress.sharing import WeightSharingCallback


class Batches:
    """Random batches of tensors in memory, many times as fast as a DataLoader."""

    def __init__(self, images: Tensor, labels: Tensor, size: int, shuffle: bool) -> None:
        self.images, self.labels, self.size, self.shuffle = images, labels, size, shuffle

    def __len__(self) -> int:
        return -(-len(self.images) // self.size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        count = len(self.images)
        order = torch.randperm(count) if self.shuffle else torch.arange(count)
        for rows in order.split(self.size):
            yield self.images[rows], self.labels[rows]


class LeNet(LightningModule):
    """LeNet-300-100 with Adam and a cosine learning rate, or SGD with momentum."""

    def __init__(self, sgd: bool = False) -> None:
        super().__init__()
        self.sgd = sgd
        self.net = nn.Sequential(nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10))

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def configure_optimizers(self) -> dict[str, object]:
        optimizer: torch.optim.Optimizer
        if self.sgd:
            optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
        else:
            optimizer = torch.optim.Adam(self.parameters(), lr=1.2e-3)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def read(path: Path) -> Tensor:
    """The bytes of an idx file."""
    raw = gzip.decompress(path.read_bytes())
    shape = [int.from_bytes(raw[4 + 4 * k : 8 + 4 * k], "big") for k in range(raw[3])]
    return torch.frombuffer(bytearray(raw[4 + 4 * len(shape) :]), dtype=torch.uint8).view(shape)


def load(folder: Path, part: str) -> tuple[Tensor, Tensor]:
    """Normalised images ``(N, 784)`` and labels of ``"train"`` or ``"t10k"``."""
    images = read(folder / f"{part}-images-idx3-ubyte.gz").flatten(1).float()
    return (images / 255 - 0.2860) / 0.3530, read(folder / f"{part}-labels-idx1-ubyte.gz").long()


def train(folder: Path, callbacks: list[Callback], epochs: int, seed: int, sgd: bool = False) -> tuple[float, LeNet]:
    """Test accuracy in per cent after ``epochs``, and the module."""
    seed_everything(seed, verbose=False)
    module = LeNet(sgd)
    trainer = Trainer(
        max_epochs=epochs,
        callbacks=callbacks,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, Batches(*load(folder, "train"), 128, shuffle=True))
    images, labels = load(folder, "t10k")
    with torch.no_grad():
        return float((module.net(images).argmax(1) == labels).float().mean() * 100), module
