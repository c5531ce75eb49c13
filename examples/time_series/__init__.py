"""MNIST-1D: sequences of 40 numbers, classified by convolutions over time that are quantized while they train."""

from examples.time_series.data import SeriesData
from examples.time_series.models import ConvNet

__all__ = ["ConvNet", "SeriesData"]
