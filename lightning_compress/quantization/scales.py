"""Scales: the grid of a given number of bits that fits the weights of each row.

All but :func:`mean` share one signature, ``Scale = Callable[[Tensor, int], Grid]``: rows ``(R, N)``, bits -> grid with
one scale per row. A scale of your own is a function of this signature; it may return a grid of your own, see
:mod:`~lightning_compress.quantization.grids`. Symmetric grids omit the most negative integer, so that ``-w`` is on the
grid of ``w``; two bits on a symmetric grid are ternary weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_compress.arguments import check_code, check_tensor_answer, shown
from lightning_compress.blocks import row_blocks
from lightning_compress.quantization.grids import AffineGrid, BinaryGrid, Grid, built_in_grids
from lightning_compress.quantization.profiles import Profile

__all__ = ["Scale", "absmax", "check_profile", "check_scale", "mean", "minmax", "mse", "power_of_two"]

Scale: TypeAlias = Callable[[Tensor, int], Grid]


def absmax(rows: Tensor, bits: int) -> AffineGrid:
    r"""The largest weight is the largest integer: ``scale = max|w| / (2^(bits-1) - 1)``.

    Args:
        rows: ``(R, N)``.
        bits: 2 to 8.

    >>> absmax(torch.tensor([[-2.54, 1.0]]), 8).scale
    tensor([[0.0200]])
    """
    high = 2 ** (bits - 1) - 1
    return _symmetric(_largest(rows) / high, bits)


def minmax(rows: Tensor, bits: int) -> AffineGrid:
    r"""All integers from the smallest weight to the largest (affine): ``scale = (max w - min w) / (2^bits - 1)``.

    The range is widened to hold zero, and the zero point is an integer, so that zero is on the grid. Integer kernels
    of convolutions and linear layers need symmetric weights; this grid makes files smaller, not models faster.

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
    return AffineGrid(scale, (low - (smallest / scale).round_()).clamp_(low, high), low, high)


def mse(rows: Tensor, bits: int) -> AffineGrid:
    r"""The scale with the smallest squared error: ``argmin_s sum (w - s q(w / s))^2``.

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
    return _symmetric(torch.cat([_least_error(rows[run], bits).scale for run in row_blocks(rows)]), bits)


def _least_error(rows: Tensor, bits: int) -> AffineGrid:
    widest = absmax(rows, bits)
    best, least = widest, _error(rows, widest)
    for fraction in torch.linspace(0.25, 1.0, 16).tolist():
        best, least = _better(rows, best, least, _symmetric(widest.scale * fraction, bits))
    for _ in range(3):
        codes = best.codes(rows)
        fitted = (rows * codes).sum(1, keepdim=True) / codes.square().sum(1, keepdim=True).clamp_(min=1)
        best, least = _better(rows, best, least, _symmetric(fitted, bits))
    return best


def power_of_two(rows: Tensor, bits: int) -> AffineGrid:
    r"""Fixed point, ``round(w 2^p) / 2^p``: the smallest power of two that covers the largest weight.

    Multiplying by such a weight needs no more than a shift, and its value is exact in half precision as well.

    Args:
        rows: ``(R, N)``.
        bits: 2 to 8.

    >>> power_of_two(torch.tensor([[-2.54, 1.0]]), 8).scale
    tensor([[0.0312]])
    """
    return _symmetric(torch.exp2(absmax(rows, bits).scale.log2().ceil_()), bits)


def mean(rows: Tensor) -> BinaryGrid:
    r"""Binary weights with the smallest squared error: ``scale = mean |w|`` over the weights that are not zero.

    Paper: Rastegari et al., "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks",
    https://arxiv.org/abs/1603.05279 (2016).

    Args:
        rows: ``(R, N)``.

    >>> mean(torch.tensor([[-2.0, 1.0, 0.0]])).scale
    tensor([[1.5000]])
    """
    scale = _above_zero(torch.cat([_mean_magnitude(rows[run]) for run in row_blocks(rows)]))
    return BinaryGrid(scale, torch.zeros_like(scale), -1, 1)


def check_scale(scale: Scale, bits: int) -> type[Grid]:
    """Try ``scale`` on two rows of weights: the class of the grid that it returns.

    Raises:
        TypeError: ``scale`` does not return a :class:`Grid`, or the fields of the grid cannot be carried by a
            checkpoint.
        ValueError: a tensor of the grid does not have one row per row of the weight, or ``nearest`` is no projection.

    >>> check_scale(absmax, 8).__name__
    'AffineGrid'
    """
    rows = torch.linspace(-1.0, 1.0, 32).square().mul(torch.linspace(-1.0, 1.0, 32).sign()).view(2, 16)
    name = getattr(scale, "__name__", repr(scale))
    grid = scale(rows, bits)
    if not isinstance(grid, Grid):
        raise TypeError(f"need scale to return a Grid, got {grid!r} from {name}")
    kind = type(grid)
    if built_in_grids().get(kind.__name__, kind) is not kind:
        raise TypeError(f"need a name of its own for the grid of {name}, got another {kind.__name__}: rename the class")
    if vars(grid).keys() != {field.name for field in fields(grid)}:
        raise TypeError(
            f"need {kind.__name__} as a dataclass, got attributes that are no fields: decorate it with "
            "@dataclass(frozen=True, eq=False)"
        )
    for field, value in grid.record().items():
        if isinstance(value, Tensor):
            if value.ndim != 2 or len(value) != len(rows):
                raise ValueError(
                    f"need {kind.__name__}.{field} of shape (rows, n) from {name}, got {tuple(value.shape)} for "
                    f"{len(rows)} rows"
                )
        elif not _is_primitive(value):
            raise TypeError(
                f"need the fields of {kind.__name__} as tensors, numbers, strings or tuples of them, which a "
                f"checkpoint can hold, got {field}={value!r}"
            )
    once = grid.nearest(rows)
    check_tensor_answer(f"{kind.__name__}.nearest(rows)", kind, once)
    if once.shape != rows.shape or not torch.equal(grid.nearest(once), once):
        raise ValueError(
            f"need {kind.__name__}.nearest as a projection, nearest(nearest(w)) == nearest(w), got other values the "
            "second time"
        )
    return kind


def check_profile(profile: Profile, scale: Scale, bits: int) -> None:
    """Refuse a scale whose grids have zero points, if the kernels of the runtime do not take them.

    Raises:
        TypeError: ``profile`` is no :class:`Profile`.
        ValueError: the code of the weight zero is not 0.

    >>> from lightning_compress.quantization.profiles import TensorRT
    >>> check_profile(TensorRT(), minmax, 8)
    Traceback (most recent call last):
    ValueError: need a symmetric scale for profile TensorRT, got minmax, ...: use scales.absmax or scales.mse
    """
    check_code(profile=profile)
    if not isinstance(profile, Profile):
        raise TypeError(f"need profile as a Profile, such as profiles.OnnxRuntime(), got {shown(profile)}")
    if not profile.symmetric_weights:
        return
    grid = scale(torch.tensor([[-1.0, 0.0, 3.0]]), bits)
    if isinstance(grid, AffineGrid) and bool(grid.zero_point.any()):
        raise ValueError(
            f"need a symmetric scale for profile {profile}, got {getattr(scale, '__name__', repr(scale))}, whose grids "
            "have zero points: use scales.absmax or scales.mse"
        )


def _is_primitive(value: object) -> bool:
    if isinstance(value, tuple):
        return all(map(_is_primitive, value))
    return value is None or isinstance(value, bool | int | float | str)


def _symmetric(scale: Tensor, bits: int) -> AffineGrid:
    high = 2 ** (bits - 1) - 1
    return AffineGrid(_above_zero(scale), torch.zeros_like(scale), -high, high)


def _mean_magnitude(rows: Tensor) -> Tensor:
    """The mean magnitude of the weights of each row that are not zero, ``(R, 1)``."""
    magnitude = rows.abs()
    return magnitude.sum(1, keepdim=True) / (magnitude > 0).sum(1, keepdim=True).clamp_(min=1)


def _largest(rows: Tensor) -> Tensor:
    """The largest magnitude of each row, ``(R, 1)``."""
    smallest, largest = torch.aminmax(rows, dim=1, keepdim=True)
    return torch.maximum(largest, -smallest)


def _above_zero(scale: Tensor) -> Tensor:
    """Replace the scale of a row of zeros by 1: its inverse must be finite."""
    return torch.where(scale > torch.finfo(scale.dtype).tiny, scale, torch.ones_like(scale))


def _error(rows: Tensor, grid: AffineGrid) -> Tensor:
    return (grid.project(rows) - rows).square_().sum(1, keepdim=True)


def _better(rows: Tensor, best: AffineGrid, least: Tensor, other: AffineGrid) -> tuple[AffineGrid, Tensor]:
    """For each row the scale with the smaller error, and that error."""
    error = _error(rows, other)
    scale = torch.where(error < least, other.scale, best.scale)
    return AffineGrid(scale, best.zero_point, best.low, best.high), torch.minimum(error, least)
