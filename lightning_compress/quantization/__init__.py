"""Quantization: weights and activations on integer grids, trained there, shipped as integers."""

from lightning_compress.quantization import observers, scales
from lightning_compress.quantization.callback import BinarizationCallback, QATCallback
from lightning_compress.quantization.grids import PerChannel, PerGroup, PerTensor

__all__ = ["BinarizationCallback", "PerChannel", "PerGroup", "PerTensor", "QATCallback", "observers", "scales"]
