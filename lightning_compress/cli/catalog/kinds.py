"""Kinds: the names that a config may use, and the arguments that take them."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["KINDS", "Shelf"]


@dataclass(frozen=True)
class Shelf:
    """Names of one file.

    Attributes:
        taker: the argument that takes them, as ``"PruningCallback.criterion"``; empty for classes that stand by
            themselves.
        module: the file, as a dotted path within this package.
        names: functions and classes.
    """

    taker: str
    module: str
    names: tuple[str, ...]


def _shelf(taker: str, module: str, names: str) -> Shelf:
    return Shelf(taker, module, tuple(names.split()))


KINDS: dict[str, tuple[Shelf, ...]] = {
    "callbacks": (
        _shelf("", "pruning.callback", "PruningCallback"),
        _shelf("", "channels.callback", "ChannelPruningCallback"),
        _shelf("", "quantization.callback", "QATCallback BinarizationCallback"),
        _shelf("", "sharing.callback", "WeightSharingCallback"),
        _shelf("", "low_rank.callback", "LowRankCallback"),
        _shelf("", "distillation.callback", "DistillationCallback"),
        _shelf("", "search.budget.callback", "CompressionBudget"),
        _shelf("", "report.callback", "CompressionReport"),
    ),
    "criteria": (
        _shelf("PruningCallback.criterion", "pruning.criteria", "magnitude taylor movement wanda random"),
        _shelf("ChannelPruningCallback.criterion", "channels.criteria", "magnitude taylor batchnorm_scale"),
    ),
    "schedules": (_shelf("PruningCallback.schedule", "schedules", "Constant Step Linear Cubic Cosine Exponential"),),
    "patterns": (_shelf("PruningCallback.pattern", "pruning.patterns", "Unstructured NM Block"),),
    "granularities": (
        _shelf("QATCallback.granularity", "quantization.granularities", "PerTensor PerChannel PerGroup"),
    ),
    "scales": (_shelf("QATCallback.scale", "quantization.scales", "absmax minmax mse power_of_two"),),
    "observers": (_shelf("QATCallback.observer", "quantization.observers", "minmax percentile mse"),),
    "profiles": (
        _shelf("QATCallback.profile", "quantization.profiles", "OnnxRuntime OpenVINO TensorRT Mobile CoreML Dynamic"),
    ),
    "inits": (_shelf("WeightSharingCallback.init", "sharing.initial_centers", "linear density plus_plus"),),
    "gradients": (_shelf("WeightSharingCallback.gradient", "sharing.gradients", "summed mean"),),
    "losses": (
        _shelf("DistillationCallback.losses", "distillation.losses.logits", "SoftTargets Decoupled Correlation"),
        _shelf("DistillationCallback.losses", "distillation.losses.features", "mse cosine attention_transfer"),
        _shelf(
            "DistillationCallback.losses",
            "distillation.losses.relations",
            "relational_distance relational_angle similarity_preserving",
        ),
    ),
    "formats": (
        _shelf("CompressionReport.formats", "deploy.writers.archive", "Archive"),
        _shelf("CompressionReport.formats", "deploy.writers.onnx", "Onnx"),
        _shelf("CompressionReport.formats", "deploy.writers.programs", "Program"),
        _shelf("CompressionReport.formats", "deploy.writers.safetensors", "SafeTensors"),
        _shelf("CompressionReport.formats", "deploy.writers.executorch", "ExecuTorchProgram"),
        _shelf("CompressionReport.formats", "deploy.writers.litert", "LiteRTModel"),
        _shelf("CompressionReport.formats", "deploy.writers.coreml", "CoreMLPackage"),
        _shelf("CompressionReport.formats", "deploy.writers.compressed_tensors", "CompressedTensors"),
    ),
}
"""Kind -> the shelves with its names."""
