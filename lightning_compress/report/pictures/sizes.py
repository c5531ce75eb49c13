"""Sizes: the bytes of the model after each stage of its compression."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.pictures.styles import AFTER, BEFORE, tidy
from lightning_compress.report.views.stages import stages

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_bytes"]


def draw_bytes(comparison: Comparison) -> Figure:
    """Bytes of the model by stage: all weights first, the archive last.

    Raises:
        ImportError: matplotlib is not installed.
    """
    found = stages(comparison.before, comparison.after)
    unit, name = (1e6, "MB") if found[0].bytes >= 1e6 else (1e3, "kB")
    with tidy(height=1.0 + 0.36 * len(found)) as (figure, axes):
        sizes = [stage.bytes / unit for stage in found]
        bars = axes.barh(
            [stage.name for stage in found], sizes, color=[BEFORE, *[AFTER] * (len(found) - 1)], height=0.62
        )
        ratios = [found[0].bytes / max(1, stage.bytes) for stage in found]
        labels = [
            f"{size:,.4g} {name}" + (f"   {ratio:.1f}x" if n else "")
            for n, (size, ratio) in enumerate(zip(sizes, ratios, strict=True))
        ]
        axes.bar_label(bars, labels, padding=4)
        axes.set(title="Bytes by stage", xticks=[])
        axes.spines["bottom"].set_visible(False)
        axes.margins(x=0.22)
        axes.invert_yaxis()
        axes.tick_params(length=0)
    return figure
