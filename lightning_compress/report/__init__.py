"""The report: the effect of compression on a model, measured."""

from lightning_compress.report.callback import CompressionReport
from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile, profile

__all__ = ["CompressionReport", "LayerProfile", "ModelProfile", "profile"]
