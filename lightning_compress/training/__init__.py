"""The Trainer wiring of every weight method."""

from lightning_compress.launchers import bring_structures_home
from lightning_compress.training.callback import WeightCompression
from lightning_compress.training.order import PRUNE, QUANTIZE, SHARE

__all__ = ["PRUNE", "QUANTIZE", "SHARE", "WeightCompression"]

bring_structures_home(WeightCompression)  # before any Trainer starts processes
