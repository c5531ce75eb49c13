"""Plots: the report as a picture; matplotlib is the extra ``plots``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightning_compress.report.comparisons import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw", "new_figure"]

_MOST = 48  # weight tensors that are drawn by name
_BEFORE, _AFTER = "#9aa5b1", "#2166ac"


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, which belongs to no window.

    Raises:
        ImportError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("need matplotlib to draw: pip install 'lightning-compress[plots]'") from error
    return Figure(figsize=(width, height), layout="constrained")


def draw(comparison: Comparison) -> Figure:
    """Zeros per layer, and the sizes of the state dict and the archive before and after.

    Raises:
        ImportError: matplotlib is not installed.
    """
    weights = [layer for layer in comparison.after.layers if len(layer.shape) > 1]
    figure = new_figure(10, max(2.5, 1.2 + 0.28 * min(len(weights), _MOST)))
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _zeros(left, comparison)
    _sizes(right, comparison)
    return figure


def _zeros(axes: Axes, comparison: Comparison) -> None:
    weights = [layer for layer in comparison.after.layers if len(layer.shape) > 1]
    fractions = [100 * (1 - layer.nonzeros / max(1, layer.parameters)) for layer in weights]
    if len(weights) > _MOST:  # no room for names
        axes.stairs(fractions, orientation="horizontal", fill=True, color=_AFTER)
        axes.set_ylabel("weight tensors, from the input on")
    else:
        bars = axes.barh([layer.name for layer in weights], fractions, color=_AFTER)
        axes.bar_label(bars, fmt="%.1f %%", padding=3)
    axes.invert_yaxis()
    axes.set(title="Zeros per weight tensor", xlabel="zeros in %", xlim=(0, 118), xticks=range(0, 101, 20))
    axes.spines[["top", "right"]].set_visible(False)


def _sizes(axes: Axes, comparison: Comparison) -> None:
    before, after = comparison.before, comparison.after
    for offset, model, label, color in ((-0.2, before, "before", _BEFORE), (0.2, after, "after", _AFTER)):
        sizes = [model.state_bytes / 1000, model.archive_bytes / 1000]
        bars = axes.bar([0 + offset, 1 + offset], sizes, width=0.38, label=label, color=color)
        axes.bar_label(bars, fmt="{:,.4g}", padding=2)
    axes.set(title="Size", ylabel="kB", xticks=[0, 1], xticklabels=["state dict", "archive (.lcz)"])
    axes.margins(y=0.12)
    axes.legend(frameon=False, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.1))
    axes.spines[["top", "right"]].set_visible(False)
