"""Pruning: the least important weights are masked while the others train."""

from lightning_compress.pruning import criteria, patterns
from lightning_compress.pruning.callback import PruningCallback
from lightning_compress.pruning.patterns import NM, Block, Unstructured

__all__ = ["NM", "Block", "PruningCallback", "Unstructured", "criteria", "patterns"]
