"""Latencies: where the model runs, before and after, with their spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.pictures.styles import AFTER, BEFORE, WIDTH, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_latencies"]


def draw_latencies(comparison: Comparison) -> Figure | None:
    """Median and quartiles before and after in each runtime; None if nothing was measured that ships.

    Raises:
        ImportError: matplotlib is not installed.
    """
    places = comparison.places
    if comparison.quantized:  # PyTorch simulates the integers
        places = {name: pair for name, pair in places.items() if not name.startswith("PyTorch")}
    if not places:
        return None
    names = list(places)
    with tidy(WIDTH, 1.1 + 0.6 * len(names)) as (figure, axes):
        for number, (label, color, shift) in enumerate((("before", BEFORE, -0.2), ("after", AFTER, 0.2))):
            found = [pair[number] for pair in places.values()]
            medians = [1e3 * one.median for one in found]
            spread = [
                [max(0.0, 1e3 * (one.median - one.lower)) for one in found],
                [max(0.0, 1e3 * (one.upper - one.median)) for one in found],
            ]
            heights = [place + shift for place in range(len(names))]
            bars = axes.barh(heights, medians, height=0.36, color=color, label=label, xerr=spread, ecolor="#6b7684")
            axes.bar_label(bars, [f"{median:.3g} ms" for median in medians], padding=4)
        axes.set_yticks(range(len(names)), names)
        axes.set(title="Latency, median and quartiles", xlabel="ms")
        axes.margins(x=0.16)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside lower right", ncols=2)
    return figure
