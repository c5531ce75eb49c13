"""MNIST-1D as a data module."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from examples.loaders import TensorLoader

__all__ = ["SeriesData"]


class SeriesData(LightningDataModule):
    """5,000 sequences ``(N, 1, 40)`` of ten classes: 3,200 to train, 800 to validate, 1,000 to test.

    The sequences are generated, identical each time.

    Paper: Greydanus and Kobak, "Scaling Down Deep Learning with MNIST-1D", https://arxiv.org/abs/2011.14439 (2024).

    Args:
        batch_size: sequences in a batch.
        seed: seed of the order of training sequences.
    """

    def __init__(self, batch_size: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.seed = seed
        self.train: tuple[Tensor, Tensor] | None = None

    def setup(self, stage: str) -> None:
        if self.train is not None:
            return
        from mnist1d.data import get_dataset_args, make_dataset

        with isolate_rng():  # make_dataset seeds all generators
            made = make_dataset(get_dataset_args())
        series = torch.tensor(made["x"], dtype=torch.float32).unsqueeze(1)
        labels = torch.tensor(made["y"])
        self.train, self.val = (series[:3200], labels[:3200]), (series[3200:], labels[3200:])
        self.test = torch.tensor(made["x_test"], dtype=torch.float32).unsqueeze(1), torch.tensor(made["y_test"])

    def train_dataloader(self) -> TensorLoader:
        assert self.train is not None  # setup has run
        return TensorLoader(*self.train, batch_size=self.batch_size, shuffle=True, seed=self.seed)

    def val_dataloader(self) -> TensorLoader:
        return TensorLoader(*self.val, batch_size=800)

    def test_dataloader(self) -> TensorLoader:
        return TensorLoader(*self.test, batch_size=1000)
