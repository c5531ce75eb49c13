"""Single cells of blood, from the file that scanpy ships, as a data module."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from examples.loaders import TensorLoader

__all__ = ["CellData"]


class CellData(LightningDataModule):
    """700 cells of human blood ``(N, 765)`` of ten types: 500 to train, 200 to validate.

    The expression of each gene is normalized: mean 0 and deviation 1 over the cells. After ``setup``, ``genes`` and
    ``types`` hold the names of columns and classes.

    Paper: Zheng et al., "Massively parallel digital transcriptional profiling of single cells", Nature Communications 8
    (2017). Its 68,000 cells are reduced to 700 of them and 765 genes in the file of scanpy.

    Args:
        path: an ``.h5ad`` file with the labels ``bulk_labels``; by default that of the installed scanpy.
        batch_size: cells in a batch.
        seed: seed of the order of training cells; the split is always the same.

    Raises:
        FileNotFoundError: in ``setup``, there is no such file.
    """

    def __init__(self, path: str | None = None, batch_size: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.path = path
        self.batch_size = batch_size
        self.seed = seed
        self.train: tuple[Tensor, Tensor] | None = None

    def setup(self, stage: str) -> None:
        if self.train is not None:
            return
        import h5py

        with h5py.File(_found(self.path)) as file:
            cells = torch.tensor(file["X"][:])
            labels = torch.tensor(file["obs"]["bulk_labels"]).long()
            self.genes = [name.decode() for name in file["var"]["index"]]
            self.types = [name.decode() for name in file["uns/bulk_labels_categories"]]
        order = torch.randperm(len(cells), generator=torch.Generator().manual_seed(0))
        train, val = order[: len(cells) * 5 // 7], order[len(cells) * 5 // 7 :]
        self.train, self.val = (cells[train], labels[train]), (cells[val], labels[val])

    def train_dataloader(self) -> TensorLoader:
        assert self.train is not None  # setup has run
        return TensorLoader(*self.train, batch_size=self.batch_size, shuffle=True, seed=self.seed)

    def val_dataloader(self) -> TensorLoader:
        return TensorLoader(*self.val, batch_size=512)


def _found(path: str | None) -> Path:
    """The file, without an import of scanpy, which takes seconds and needs more packages."""
    scanpy = find_spec("scanpy")
    shipped = Path(str(scanpy.origin)).parent / "datasets" / "10x_pbmc68k_reduced.h5ad" if scanpy else None
    file = Path(path) if path else shipped
    if file is None or not file.is_file():
        raise FileNotFoundError(
            f"need the cells that scanpy ships, got path={path!r}: pip install h5py, and pip install --no-deps scanpy; "
            "or name an .h5ad file, --data.path FILE"
        )
    return file
