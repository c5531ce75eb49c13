"""Comparisons: a model before and after its compression, and what may be said about the difference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning_compress.report.profile import Cost, LayerProfile, ModelProfile

__all__ = ["Comparison", "remarks"]


@dataclass(frozen=True)
class Comparison:
    """The dense model at the start of ``fit``, and what is left at its end.

    Attributes:
        before: profile of the dense model.
        after: profile of the compressed model.
        metrics_before: the validation metrics seen last while nothing was compressed.
        metrics_after: those seen last.
        dense_steps: optimizer steps after which ``metrics_before`` were seen.
        steps: optimizer steps of the run.
        uncosted: why there is no cost, if there is none.
        methods: what each callback says about itself, by the callback's name.
    """

    before: ModelProfile
    after: ModelProfile
    metrics_before: Mapping[str, float] = field(default_factory=dict)
    metrics_after: Mapping[str, float] = field(default_factory=dict)
    dense_steps: int = 0
    steps: int = 0
    uncosted: str = "needs example_input"
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def costs(self) -> tuple[Cost, Cost] | None:
        """Costs before and after, if both were measured."""
        return (self.before.cost, self.after.cost) if self.before.cost and self.after.cost else None

    @property
    def layers(self) -> list[tuple[LayerProfile | None, LayerProfile | None]]:
        """Each parameter tensor before and after, None where it does not exist."""
        before, after = ({layer.name: layer for layer in model.layers} for model in (self.before, self.after))
        return [(before.get(name), after.get(name)) for name in before | after]


def remarks(comparison: Comparison) -> list[str]:
    """What keeps the numbers of a comparison honest: which of them the others do not imply."""
    before, after = comparison.before, comparison.after
    said = []
    if after.nonzeros < before.nonzeros and after.parameters == before.parameters:
        said.append(
            f"{after.sparsity:.1%} of the parameters are zero and stored where they were: dense kernels multiply by "
            "them all the same, so they make this runtime no faster and the state dict no smaller. They make the "
            "archive smaller."
        )
    if comparison.costs:
        said.append(_on_latency(*comparison.costs))
    if comparison.metrics_before:
        said.append(
            f"Metrics before are those of the last validation before compression began, after "
            f"{comparison.dense_steps} of {comparison.steps} steps: not those of a dense model trained to the end."
        )
    return said


def _on_latency(before: Cost, after: Cost) -> str:
    where = f"Latency is that of eager PyTorch on {after.device} with {after.threads} thread, input {after.inputs}"
    change = abs(after.latency - before.latency)
    if change <= before.spread + after.spread:
        return f"{where}; its change is within the spread of the measurement."
    if after.macs == before.macs:
        return f"{where}; it changed although as many numbers are multiplied: the removed weights are not the cause."
    return f"{where}; its change is beyond the spread of the measurement."
