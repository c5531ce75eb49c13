"""The digits of scikit-learn as a data module."""

from __future__ import annotations

import torch
from lightning.pytorch import LightningDataModule
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from examples.loaders import TensorLoader

__all__ = ["DigitsData"]


class DigitsData(LightningDataModule):
    """1,797 handwritten digits as images ``(N, 1, 8, 8)`` in [0, 1]: 60 % to train, 20 % to validate, 20 % to test.

    Args:
        batch_size: images in a batch.
        seed: seed of the order of training images; the split is always the same.
    """

    def __init__(self, batch_size: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.batch_size = batch_size
        self.seed = seed

    def setup(self, stage: str) -> None:
        digits = load_digits()
        images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
        labels = torch.tensor(digits.target)
        indices = range(len(labels))
        train, rest = train_test_split(indices, test_size=0.4, stratify=labels, random_state=0)
        val, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=0)
        self.train, self.val, self.test = ((images[part], labels[part]) for part in (train, val, test))

    def train_dataloader(self) -> TensorLoader:
        return TensorLoader(*self.train, batch_size=self.batch_size, shuffle=True, seed=self.seed)

    def val_dataloader(self) -> TensorLoader:
        return TensorLoader(*self.val, batch_size=512)

    def test_dataloader(self) -> TensorLoader:
        return TensorLoader(*self.test, batch_size=512)
