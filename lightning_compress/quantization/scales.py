"""Scales: which grid of a given number of bits fits the weights of each row.

All share one signature, ``Scale = Callable[[Tensor, int], Grid]``: rows ``(R, N)``, bits -> grid with one scale
per row. A scale of your own is a function of this signature. Symmetric grids leave out the most negative integer, so
that ``-w`` is on the grid of ``w``; two bits on a symmetric grid are ternary weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_compress.quantization.grids import Grid

__all__ = ["Scale", "absmax", "mean", "minmax", "mse", "power_of_two"]

Scale: TypeAlias = Callable[[Tensor, int], Grid]


def absmax(rows: Tensor, bits: int) -> Grid:
    r"""The largest weight is the largest integer: ``scale = max|w| / (2^(bits-1) - 1)``.

    Args:
        rows: ``(R, N)``.
        bits: 2 to 8.

    >>> absmax(torch.tensor([[-2.54, 1.0]]), 8).scale
    tensor([[0.0200]])
    """
    high = 2 ** (bits - 1) - 1
    return _symmetric(rows.abs().amax(1, keepdim=True) / high, bits)


def minmax(rows: Tensor, bits: int) -> Grid:
    r"""All integers from the smallest weight to the largest (affine): ``scale = (max w - min w) / (2^bits - 1)``.

    The range is widened to hold zero, and the zero point is an integer, so that zero is on the grid. Kernels for
    int8 convolutions and linear layers want symmetric weights; this is for size alone.

    Paper: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", https://arxiv.org/abs/1712.05877 (2018).

    Args:
        rows: ``(R, N)``.
        bits: 2 to 8.

    >>> grid = minmax(torch.tensor([[0.0, 2.55]]), 8)
    >>> grid.scale.item(), grid.zero_point.item()
    (0.00999..., -128.0)
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    smallest = rows.amin(1, keepdim=True).clamp_(max=0)
    scale = _above_zero((rows.amax(1, keepdim=True).clamp_(min=0) - smallest) / (high - low))
    return Grid(scale, (low - (smallest / scale).round_()).clamp_(low, high), low, high)


def mse(rows: Tensor, bits: int) -> Grid:
    r"""The scale that loses least: ``argmin_s sum (w - s q(w / s))^2``.

    The best of 16 scales up to ``absmax``, improved by alternating least squares: given the integers, the best scale
    is ``<w, q> / <q, q>``. With two bits these are the best ternary weights.

    Papers: Li et al., "Ternary Weight Networks", https://arxiv.org/abs/1605.04711 (2016); Rastegari et al.,
    https://arxiv.org/abs/1603.05279 (2016).

    Args:
        rows: ``(R, N)``.
        bits: 2 to 8.

    >>> mse(torch.tensor([[1.0, 1.0, -1.0, 0.0, 1.2]]), 2).scale
    tensor([[1.0500]])
    """
    widest = absmax(rows, bits)
    best, least = widest, _error(rows, widest)
    for share in torch.linspace(0.25, 1.0, 16).tolist():
        best, least = _better(rows, best, least, _symmetric(widest.scale * share, bits))
    for _ in range(3):
        codes = best.codes(rows)
        fitted = (rows * codes).sum(1, keepdim=True) / codes.square().sum(1, keepdim=True).clamp_(min=1)
        best, least = _better(rows, best, least, _symmetric(fitted, bits))
    return best


def power_of_two(rows: Tensor, bits: int) -> Grid:
    r"""Fixed point, ``round(w 2^p) / 2^p``: the smallest power of two that covers the largest weight.

    Products with such weights need shifts alone, and the values are exact in half precision as well.

    Args:
        rows: ``(R, N)``.
        bits: 2 to 8.

    >>> power_of_two(torch.tensor([[-2.54, 1.0]]), 8).scale
    tensor([[0.0312]])
    """
    return _symmetric(torch.exp2(absmax(rows, bits).scale.log2().ceil_()), bits)


def mean(rows: Tensor) -> Grid:
    r"""The binary weights that lose least: ``scale = mean |w|`` over the weights that are not zero.

    Paper: Rastegari et al., "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks",
    https://arxiv.org/abs/1603.05279 (2016).

    Args:
        rows: ``(R, N)``.

    >>> mean(torch.tensor([[-2.0, 1.0, 0.0]])).scale
    tensor([[1.5000]])
    """
    magnitude = rows.abs()
    return _symmetric(magnitude.sum(1, keepdim=True) / (magnitude > 0).sum(1, keepdim=True).clamp_(min=1), 2)


def _symmetric(scale: Tensor, bits: int) -> Grid:
    high = 2 ** (bits - 1) - 1
    return Grid(_above_zero(scale), torch.zeros_like(scale), -high, high)


def _above_zero(scale: Tensor) -> Tensor:
    """A row of zeros has any scale; one whose inverse is finite."""
    return torch.where(scale > torch.finfo(scale.dtype).tiny, scale, torch.ones_like(scale))


def _error(rows: Tensor, grid: Grid) -> Tensor:
    return (grid.project(rows) - rows).square_().sum(1, keepdim=True)


def _better(rows: Tensor, best: Grid, least: Tensor, other: Grid) -> tuple[Grid, Tensor]:
    """Row by row the grid with the smaller error, and that error."""
    error = _error(rows, other)
    scale = torch.where(error < least, other.scale, best.scale)
    return Grid(scale, best.zero_point, best.low, best.high), torch.minimum(error, least)
