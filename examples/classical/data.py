"""Tables of scikit-learn as a data module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch import LightningDataModule
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from examples.loaders import TensorLoader

__all__ = ["TableData"]


class TableData(LightningDataModule):
    """A classification table: 75 % of its rows to train, 25 % to test; each column has mean 0 and deviation 1.

    Args:
        load: function that returns features ``(N, D)`` and labels ``(N,)``: a loader of scikit-learn such as
            ``sklearn.datasets.load_breast_cancer`` or ``load_digits``, called with ``return_X_y=True``.
        batch_size: rows in a batch.
        seed: seed of the order of training rows; the split is always the same.
    """

    def __init__(self, load: Callable[..., Any] = load_breast_cancer, batch_size: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.load = load
        self.batch_size = batch_size
        self.seed = seed

    def setup(self, stage: str) -> None:
        features, labels = self.load(return_X_y=True)
        train, test, train_labels, test_labels = train_test_split(features, labels, stratify=labels, random_state=0)
        scaler = StandardScaler().fit(train)
        self.train = torch.tensor(scaler.transform(train), dtype=torch.float32), torch.tensor(train_labels)
        self.test = torch.tensor(scaler.transform(test), dtype=torch.float32), torch.tensor(test_labels)

    def train_dataloader(self) -> TensorLoader:
        return TensorLoader(*self.train, batch_size=self.batch_size, shuffle=True, seed=self.seed)

    def val_dataloader(self) -> TensorLoader:
        return TensorLoader(*self.test, batch_size=512)

    def test_dataloader(self) -> TensorLoader:
        return self.val_dataloader()
