"""A few cells of random expressions, in the layout of the file that scanpy ships."""

from pathlib import Path

import h5py
import numpy as np

__all__ = ["write_cells"]


def write_cells(path: Path, cells: int = 70, genes: int = 765, types: int = 10) -> None:
    """Write an ``.h5ad`` file; the name of gene 3 is ``gene3``."""
    rng = np.random.default_rng(0)
    labels = np.zeros(cells, [("index", "S16"), ("bulk_labels", "i1")])
    labels["bulk_labels"] = np.arange(cells) % types
    names = np.zeros(genes, [("index", "S13")])
    names["index"] = [f"gene{k}" for k in range(genes)]
    with h5py.File(path, "w") as file:
        file["X"] = rng.normal(size=(cells, genes)).astype("float32")
        file["obs"], file["var"] = labels, names
        file["uns/bulk_labels_categories"] = np.array([f"type{k}" for k in range(types)], "S28")
