"""Layers: zeros, bits and channels of each weight."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_compress.messages import plain
from lightning_compress.report.comparisons import FEW, Comparison
from lightning_compress.report.measures.profiles import LayerProfile
from lightning_compress.report.pictures.styles import AFTER, BEFORE, MANY, WIDTH, tidy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw_bits", "draw_channels", "draw_zeros"]


def draw_zeros(comparison: Comparison) -> Figure | None:
    """Zeros per weight tensor in percent; None if no tensor has any to speak of.

    Raises:
        ImportError: matplotlib is not installed.
    """
    layers = _weights(comparison)
    if not any(layer.sparsity > FEW for layer in layers):
        return None
    values = [100 * layer.sparsity for layer in layers]
    return _profile("Zeros per weight tensor", "zeros in %", layers, values, limit=100, digits=1)


def draw_bits(comparison: Comparison) -> Figure | None:
    """Bits per element of each weight tensor; None if nothing was quantized.

    Raises:
        ImportError: matplotlib is not installed.
    """
    if not comparison.quantized:
        return None
    layers = _weights(comparison)
    return _profile("Bits per weight", "bits", layers, [layer.bits for layer in layers], limit=None, digits=0)


def draw_channels(comparison: Comparison) -> Figure | None:
    """Output channels of each weight tensor that are kept; None if none was removed.

    Raises:
        ImportError: matplotlib is not installed.
    """
    pairs = [(before, after) for before, after in comparison.layers if before and after and len(after.shape) > 1]
    if not any(after.shape[0] < before.shape[0] for before, after in pairs):
        return None
    layers = [after for _, after in pairs]
    dense = [before.shape[0] for before, _ in pairs]
    kept = [layer.shape[0] for layer in layers]
    return _profile("Channels kept per layer", "output channels", layers, kept, limit=None, digits=0, behind=dense)


def _weights(comparison: Comparison) -> list[LayerProfile]:
    return [layer for layer in comparison.after.layers if len(layer.shape) > 1]


def _profile(
    title: str,
    label: str,
    layers: Sequence[LayerProfile],
    values: Sequence[float],
    *,
    limit: float | None,
    digits: int,
    behind: Sequence[float] = (),
) -> Figure:
    """Bars with names; of many layers a filled line along the network."""
    if len(layers) > MANY:
        with tidy() as (figure, axes):
            if behind:
                axes.stairs(behind, fill=True, color=BEFORE, alpha=0.5, label="before")
            axes.stairs(values, fill=True, color=AFTER, alpha=0.85, label="after")
            axes.set(title=title, ylabel=label, xlabel=f"{len(layers):,} weight tensors, from the input on")
            axes.set_ylim(0, limit)
        return figure
    with tidy(WIDTH, 0.9 + 0.27 * len(layers)) as (figure, axes):
        names = [plain(layer.name) for layer in layers]
        places = range(len(names))
        if behind:
            axes.barh(places, behind, color=BEFORE, alpha=0.5, height=0.66)
        bars = axes.barh(places, values, color=AFTER, height=0.66)
        texts = [f"{value:.{digits}f}" for value in values]
        if behind:
            texts = [f"{text} of {old:.0f}" for text, old in zip(texts, behind, strict=True)]
        axes.bar_label(bars, texts, padding=4)
        axes.set_yticks(places, [name if len(name) < 40 else f"...{name[-36:]}" for name in names])
        axes.set(title=title, xlabel=label)
        axes.set_xlim(0, 1.16 * max(limit or 0, *values, *behind) or 1)
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
    return figure
