"""Compression that happens during training, for PyTorch Lightning."""

from lightning_compress.pruning import NM, Block, PruningCallback, Unstructured

__version__ = "0.1.0"

__all__ = ["NM", "Block", "PruningCallback", "Unstructured"]
