"""The Trainer wiring that every weight method shares."""

from lightning_compress.training.callback import WeightCompression
from lightning_compress.training.method import PRUNE, QUANTIZE, SHARE, Method

__all__ = ["PRUNE", "QUANTIZE", "SHARE", "Method", "WeightCompression"]
