"""The report: what compression did to a model, measured."""

from lightning_compress.report.callback import CompressionReport
from lightning_compress.report.metrics import Agreement, Sparsity
from lightning_compress.report.profile import Cost, LayerProfile, ModelProfile, measure, profile

__all__ = ["Agreement", "CompressionReport", "Cost", "LayerProfile", "ModelProfile", "Sparsity", "measure", "profile"]
