"""Plots of sensitivities as heat maps; matplotlib is the extra ``plots``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lightning_compress.report.pictures.styles import new_figure
from lightning_compress.search.measuring.results import LayerSensitivity, Sensitivity

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

_DARK = 0.65  # of the range of shades: beyond it, black numbers cannot be read


def draw(found: Sensitivity) -> Figure:
    """The drops, and the second-order proxy beside them; layers are rows and methods columns.

    Raises:
        ImportError: matplotlib is not installed.
    """
    layers, methods = found.layers, found.methods
    figure = new_figure(4 + 1.1 * len(methods), max(2.5, 1.8 + 0.3 * len(layers)))
    left, right = figure.subplots(1, 2, sharey=True)
    _heat(left, found, "drop", f"drop of the metric (dense {found.dense:.4g})")
    _heat(right, found, "cost", f"second-order proxy (rank correlation {found.rank_correlation:.2f})")
    return figure


def _heat(axes: Axes, found: Sensitivity, name: str, title: str) -> None:
    rows = [[found.row(layer, method) for method in found.methods] for layer in found.layers]
    values = [[math.nan if row is None else getattr(row, name) for row in line] for line in rows]
    # By decades: one layer of few bits costs as much as all others together.
    shades = [[math.log10(max(value, 1e-6)) if value == value else math.nan for value in line] for line in values]
    known = [shade for line in shades for shade in line if shade == shade]
    dark = min(known) + _DARK * (max(known) - min(known))
    axes.imshow(shades, aspect="auto", cmap="YlOrRd")
    axes.set_title(title, fontsize=9)
    axes.set_yticks(range(len(found.layers)), found.layers, fontsize=8)
    axes.set_xticks(range(len(found.methods)), _labels(found), fontsize=8, rotation=45, ha="right")
    for y, line in enumerate(values):
        for x, value in enumerate(line):
            if value == value:
                color = "white" if shades[y][x] > dark else "black"
                axes.text(x, y, f"{value:.2g}", ha="center", va="center", fontsize=7, color=color)


def _labels(found: Sensitivity) -> list[str]:
    first: dict[str, LayerSensitivity] = {}
    for row in found.rows:
        first.setdefault(row.method, row)
    return [row.label for row in first.values()]
