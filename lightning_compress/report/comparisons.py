"""Comparisons: a model before and after its compression, and what may be said about the difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_compress.report.measures.deployments import Deployment
from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile
from lightning_compress.timing import Latency

__all__ = ["Comparison", "remarks"]

_FEW = 0.02  # zeros that rounding leaves need no word


@dataclass(frozen=True)
class Comparison:
    """The dense model at the start of ``fit``, and what is left at its end.

    Attributes:
        before: profile of the dense model.
        after: profile of the compressed model.
        latencies: before and after, measured in turns.
        uncosted: why multiply-accumulates or latencies are missing, where they are.
        metrics_before: the validation metrics seen last while nothing was compressed.
        metrics_after: those seen last.
        dense_steps: optimizer steps after which ``metrics_before`` were seen.
        steps: optimizer steps of the run.
        methods: what each callback says about itself, by the callback's name.
        deployments: what runtimes make of the files that were written.
    """

    before: ModelProfile
    after: ModelProfile
    latencies: tuple[Latency, Latency] | None = None
    uncosted: str = "needs example_input"
    metrics_before: Mapping[str, float] = field(default_factory=dict)
    metrics_after: Mapping[str, float] = field(default_factory=dict)
    dense_steps: int = 0
    steps: int = 0
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    deployments: tuple[Deployment, ...] = ()

    @property
    def layers(self) -> list[tuple[LayerProfile | None, LayerProfile | None]]:
        """Each parameter tensor before and after, None where it does not exist."""
        before, after = ({layer.name: layer for layer in model.layers} for model in (self.before, self.after))
        return [(before.get(name), after.get(name)) for name in before | after]

    @property
    def quantized(self) -> bool:
        """Whether some parameters came to be integers."""
        bits = {layer.name: layer.bits for layer in self.before.layers}
        return any(layer.bits < bits.get(layer.name, 0) for layer in self.after.layers)


def remarks(comparison: Comparison) -> list[str]:
    """What keeps the numbers of a comparison honest: which of them do not follow from others."""
    before, after = comparison.before, comparison.after
    said = []
    if after.sparsity - before.sparsity > _FEW and after.parameters == before.parameters:
        said.append(
            f"{after.sparsity:.1%} of the parameters are zeros that stand where weights stood: dense kernels multiply "
            "by them all the same, so this sparsity cannot make this runtime faster or the state dict smaller. "
            "It counts in the archive."
        )
    if comparison.latencies:
        said.append(_on_latency(comparison, *comparison.latencies))
    for found in comparison.deployments:
        pairs = {"the example": found.latencies, f"{found.samples} samples": found.batch_latencies}
        slow = [what for what, (dense, mine) in pairs.items() if not mine.upper < dense.lower]
        if slow:
            said.append(f"{found.file} is no faster than the dense model in {found.runtime} on {' and '.join(slow)}.")
        if found.integer and found.floating:
            said.append(f"{found.runtime} computes in float in {found.file}: {', '.join(found.floating)}.")
    if comparison.metrics_before:
        said.append(
            "Metrics before are those of the last validation before compression began, after "
            f"{comparison.dense_steps} of {comparison.steps} steps, not those of a dense model trained to the end."
        )
    elif comparison.metrics_after:
        said.append("Metrics before are missing: no validation ran before compression began.")
    return said


def _on_latency(comparison: Comparison, before: Latency, after: Latency) -> str:
    where = f"Latency is the median (and quartiles) in eager PyTorch on {after.device}, before and after in turns"
    if not after.differs(before):
        return f"{where}; the quartiles overlap: no difference was measured."
    same = comparison.before.macs == comparison.after.macs
    if comparison.quantized and after.median > before.median:
        return where + "; quantization is played there in float, which costs time: the files compute in integers."
    return where + ("; the difference is not due to fewer multiply-accumulates." if same else ".")
