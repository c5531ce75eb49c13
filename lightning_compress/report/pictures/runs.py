"""Runs: the metric over the steps, beside the strength of the methods."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lightning_compress.messages import plain
from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.headlines import direction
from lightning_compress.report.pictures.styles import AFTER, BEFORE, COLORS, HEIGHT, WIDTH, tidy

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw_metrics"]


def draw_metrics(comparison: Comparison) -> Figure | None:
    """A metric at every validation, and the strength of each method: shaded ramps, dashed removals of channels.

    None with fewer than two validations.

    Raises:
        ImportError: matplotlib is not installed.
    """
    name = _metric(comparison)
    if name is None:
        return None
    seen = [moment for moment in comparison.history if math.isfinite(moment.metrics.get(name, math.nan))]
    steps = [moment.step for moment in seen]
    with tidy(WIDTH, HEIGHT + 0.4) as (figure, axes):
        axes.plot(steps, [moment.metrics[name] for moment in seen], color=AFTER, marker="o", markersize=3.5, zorder=3)
        axes.set(title=f"{plain(name)} and strength over steps", xlabel="optimizer steps", ylabel=plain(name))
        if name in comparison.metrics_before:
            axes.axhline(comparison.metrics_before[name], color=BEFORE, linestyle="--", label="before")
        other = _strengths(axes, comparison)
        for earlier, later in zip(comparison.history, comparison.history[1:], strict=False):
            if later.parameters < earlier.parameters:
                axes.axvline(later.step, color=COLORS[4], linestyle=":", label="channels removed")
        named = {label: line for place in (axes, other) for line, label in _named(place)}
        if named:
            other.legend(named.values(), named, loc="lower right", fontsize=8)
    return figure


def _metric(comparison: Comparison) -> str | None:
    """The metric that monitors watch, else the first whose direction is known, of two validations or more."""
    counts: dict[str, int] = {}
    for moment in comparison.history:
        for name, value in moment.metrics.items():
            counts[name] = counts.get(name, 0) + math.isfinite(value)
    names = [name for name, count in counts.items() if count > 1]
    watched = [name for name in names if name in comparison.modes]
    higher = [name for name in names if direction(name, comparison.modes) == "max"]
    return next(iter([*watched, *higher, *names]), None)


def _named(axes: Axes) -> list[tuple[Artist, str]]:
    return list(zip(*axes.get_legend_handles_labels(), strict=True))


def _strengths(axes: Axes, comparison: Comparison) -> Axes:
    """Draw the strengths on an axis of their own, and return it; the given one if there are none."""
    methods = list(dict.fromkeys(name for moment in comparison.history for name in moment.methods))
    if not methods:
        return axes
    other = axes.twinx()
    other.spines["right"].set_visible(True)
    for name, color in zip(methods, [*COLORS[1:], *[COLORS[1]] * len(methods)], strict=False):
        seen = [moment for moment in comparison.history if name in moment.methods]
        steps = [moment.step for moment in seen]
        strengths = [moment.methods[name]["strength"] for moment in seen]
        other.plot(steps, strengths, color=color, linewidth=1.2, label=_label(seen[-1].methods[name], name))
        ramp = [step for step, strength in zip(steps, strengths, strict=True) if 0 < strength < 1]
        if ramp:
            axes.axvspan(min(ramp), max(ramp), color=color, alpha=0.08, linewidth=0)
    other.set(ylabel="strength", ylim=(-0.03, 1.05))
    return other


def _label(numbers: Mapping[str, float], name: str) -> str:
    """A method with the number that it has reached, such as its sparsity."""
    reached = [f"{key} {value:.3g}" for key, value in numbers.items() if key != "strength"]
    return plain(f"{name} ({', '.join(reached)})" if reached else name)
