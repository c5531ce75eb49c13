"""Plots of runs: metric against bytes, with the Pareto front; matplotlib is the extra ``plots``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lightning_compress.report.pictures.styles import new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Point", "draw"]

_FRONT, _OTHER = "#2166ac", "#9aa5b1"


@dataclass(frozen=True)
class Point:
    """One run of a plot.

    Attributes:
        label: its number.
        bytes: size of its file.
        metric: its metric.
        front: whether it is on the Pareto front.
    """

    label: str
    bytes: int
    metric: float
    front: bool


def draw(points: Sequence[Point], metric: str) -> Figure:
    """Runs as numbered points, those of the Pareto front joined by a line.

    Args:
        points: the runs.
        metric: name of the metric.

    Raises:
        ImportError: matplotlib is not installed.
    """
    figure = new_figure(7, 4.5)
    axes = figure.subplots()
    best = sorted((point.bytes, point.metric) for point in points if point.front)
    axes.plot([size for size, _ in best], [value for _, value in best], color=_FRONT, linewidth=1, zorder=1)
    for front, color, name in ((False, _OTHER, "other runs"), (True, _FRONT, "Pareto front")):
        chosen = [point for point in points if point.front == front]
        if chosen:
            sizes, values = [point.bytes for point in chosen], [point.metric for point in chosen]
            axes.scatter(sizes, values, color=color, label=name, zorder=2)
    for point in points:
        axes.annotate(point.label, (point.bytes, point.metric), (4, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel="bytes of the file", ylabel=metric, xscale="log")
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
