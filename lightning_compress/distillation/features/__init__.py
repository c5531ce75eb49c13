"""Features: the outputs of a network's layers, recorded, found by name, and mapped to other shapes."""

from lightning_compress.distillation.features.names import OUTPUT, match
from lightning_compress.distillation.features.recordings import NetworkCall, Recorder, output_tensor
from lightning_compress.distillation.features.regressors import LeastSquares, Regressor

__all__ = ["OUTPUT", "LeastSquares", "NetworkCall", "Recorder", "Regressor", "match", "output_tensor"]
