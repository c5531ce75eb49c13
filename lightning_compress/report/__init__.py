"""The report: what compression did to a model, measured."""

from lightning_compress.report.callback import CompressionReport
from lightning_compress.report.costs import Latency, Macs, count_macs, measure_latencies
from lightning_compress.report.metrics import Agreement, Sparsity
from lightning_compress.report.profile import LayerProfile, ModelProfile, profile

__all__ = [
    "Agreement",
    "CompressionReport",
    "Latency",
    "LayerProfile",
    "Macs",
    "ModelProfile",
    "Sparsity",
    "count_macs",
    "measure_latencies",
    "profile",
]
