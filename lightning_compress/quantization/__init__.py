"""Quantization: weights and activations on integer grids, trained there, shipped as integers."""

from lightning_compress.quantization import observers, profiles, scales
from lightning_compress.quantization.bits.mixed import MixedBits
from lightning_compress.quantization.callback import BinarizationCallback, QATCallback
from lightning_compress.quantization.granularities import PerChannel, PerGroup, PerTensor
from lightning_compress.quantization.grids import AffineGrid, Grid

__all__ = [
    "AffineGrid",
    "BinarizationCallback",
    "Grid",
    "MixedBits",
    "PerChannel",
    "PerGroup",
    "PerTensor",
    "QATCallback",
    "observers",
    "profiles",
    "scales",
]
