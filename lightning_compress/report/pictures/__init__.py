"""Pictures of a report, each a function that returns a figure; matplotlib is the extra ``plots``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.pictures.latencies import draw_latencies
from lightning_compress.report.pictures.layers import draw_bits, draw_channels, draw_zeros
from lightning_compress.report.pictures.runs import draw_metrics
from lightning_compress.report.pictures.sizes import draw_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FILES", "draw", "drawable"]

_PICTURES: dict[str, Callable[[Comparison], Figure | None]] = {
    "bytes": draw_bytes,
    "metrics": draw_metrics,
    "latencies": draw_latencies,
    "zeros": draw_zeros,
    "bits": draw_bits,
    "channels": draw_channels,
}
FILES = tuple(f"{name}.{kind}" for name in _PICTURES for kind in ("png", "svg"))
"""Names of the files that a report draws."""


def drawable(comparison: Comparison) -> dict[str, Figure]:
    """Name -> picture, of those that show something.

    Raises:
        ImportError: matplotlib is not installed.
    """
    drawn = {name: function(comparison) for name, function in _PICTURES.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def draw(comparison: Comparison, name: str | None = None) -> Figure:
    """One picture.

    Args:
        comparison: the comparison.
        name: which one; by default the first that shows something.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: there is no such picture, or it would be empty.
    """
    found = drawable(comparison) if name is None or name not in _PICTURES else {name: _PICTURES[name](comparison)}
    figure = next(iter(found.values()), None) if name is None or name in _PICTURES else None
    if figure is None:
        raise ValueError(f"need name as one of the pictures {', '.join(drawable(comparison))}, got {name!r}")
    return figure
