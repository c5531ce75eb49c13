"""The report: the effect of compression on a model, measured."""

from lightning_compress.report.callback import CompressionReport
from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.measures.histories import Moment
from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile, profile
from lightning_compress.report.saved_reports import read_report

__all__ = ["Comparison", "CompressionReport", "LayerProfile", "ModelProfile", "Moment", "profile", "read_report"]
