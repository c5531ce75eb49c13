"""Comparisons: a model before and after its compression, and remarks on the difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_compress.messages import listed
from lightning_compress.report.measures.deployments import Deployment
from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile
from lightning_compress.timing import Latency

__all__ = ["Comparison", "remarks"]

_FEW = 0.02  # rounding leaves a few zeros, which need no remark


@dataclass(frozen=True)
class Comparison:
    """The dense model at the start of ``fit``, and the compressed model at its end.

    Attributes:
        before: profile of the dense model.
        after: profile of the compressed model.
        latencies: before and after, measured in turns.
        uncosted: the reason why multiply-accumulates or latencies are missing.
        metrics_before: metrics of the model that the compressed one is compared with; empty if they are not known.
        metrics_after: metrics of the last validation.
        unvalidated: optimizer steps after the last validation: its metrics are those of an earlier model if there are
            any.
        compared_with: that model, in words.
        modes: metric name -> ``"min"`` or ``"max"``, as the monitors of the Trainer say.
        steps: optimizer steps of the run.
        files: file name -> bytes, of the model files that were written.
        failures: file name -> error, of the model files that could not be written or failed their check.
        methods: callback name -> its report.
        deployments: the exported files in the runtimes.
    """

    before: ModelProfile
    after: ModelProfile
    latencies: tuple[Latency, Latency] | None = None
    uncosted: str = "needs example_input"
    metrics_before: Mapping[str, float] = field(default_factory=dict)
    metrics_after: Mapping[str, float] = field(default_factory=dict)
    unvalidated: int = 0
    compared_with: str = ""
    modes: Mapping[str, str] = field(default_factory=dict)
    steps: int = 0
    files: Mapping[str, int] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    deployments: tuple[Deployment, ...] = ()

    @property
    def layers(self) -> list[tuple[LayerProfile | None, LayerProfile | None]]:
        """Each parameter tensor before and after; None if it does not exist."""
        before, after = ({layer.name: layer for layer in model.layers} for model in (self.before, self.after))
        return [(before.get(name), after.get(name)) for name in before | after]

    @property
    def quantized(self) -> bool:
        """Whether some parameters became integers."""
        bits = {layer.name: layer.bits for layer in self.before.layers}
        return any(layer.bits < bits.get(layer.name, 0) for layer in self.after.layers)


def remarks(comparison: Comparison) -> list[str]:
    """Sentences that say which numbers of a comparison do not follow from others."""
    before, after = comparison.before, comparison.after
    said = []
    if after.sparsity - before.sparsity > _FEW and after.parameters == before.parameters:
        said.append(
            f"{after.sparsity:.1%} of the parameters are zeros, and the shapes are unchanged. Dense kernels multiply "
            "by zeros as by other numbers, so this sparsity cannot make this runtime faster or the state dict smaller. "
            "It makes the archive smaller."
        )
    if comparison.latencies:
        said.append(_on_latency(comparison, *comparison.latencies))
    for found in comparison.deployments:
        pairs = {"the example": found.latencies, f"{found.samples} samples": found.batch_latencies}
        slow = [name for name, pair in pairs.items() if pair and not pair[1].upper < pair[0].lower]
        if slow:
            said.append(f"{found.file} is no faster than the dense model in {found.runtime} on {' and '.join(slow)}.")
        if found.integer and found.floating:
            said.append(f"{found.runtime} computes these layers of {found.file} in float: {listed(found.floating)}.")
    if comparison.metrics_before:
        said.append(f"The metrics before are those of {comparison.compared_with}.")
    elif comparison.metrics_after:
        said.append(
            "The metrics before are missing: the model was not trained before fit. Pass those of a dense model, as "
            "CompressionReport(baseline={'val_acc': 0.9})."
        )
    return said


def _on_latency(comparison: Comparison, before: Latency, after: Latency) -> str:
    where = f"Latency is the median (and quartiles) in eager PyTorch on {after.device}, before and after in turns"
    if not after.differs(before):
        return f"{where}. The quartiles overlap, so no difference was measured."
    same = comparison.before.macs == comparison.after.macs
    if comparison.quantized and after.median > before.median:
        return (
            where
            + ". PyTorch simulates quantization in float, which is slower. The exported files compute in integers."
        )
    return where + (". The difference is not due to fewer multiply-accumulates." if same else ".")
