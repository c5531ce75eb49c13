"""Rounding of activations to a grid, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["RoundStraightThrough", "RoundWithRange", "range_gradient", "row_scales"]


class RoundStraightThrough(torch.autograd.Function):
    """``(clamp(round(x / scale) + zero_point, *codes) - zero_point) * scale``; the gradient passes straight through.

    ``codes`` are the lowest and the highest code. A zero point of None is 0. The cost is passes over memory: four in
    place, six with a zero point, none backward.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor | None, codes: tuple[int, int]) -> Tensor:
        return _rounded(x, scale, zero_point, codes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient, None, None, None


class RoundWithRange(torch.autograd.Function):
    """:class:`RoundStraightThrough` with a gradient of the range: of its lowest and its highest value."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, low: Tensor, high: Tensor, scale: Tensor, zero_point: Tensor | None, codes: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(x, scale, zero_point)
        ctx.codes = codes
        return _rounded(x, scale, zero_point, codes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        x, scale, zero_point = ctx.saved_tensors
        low, high = range_gradient(gradient, x, scale, zero_point, ctx.codes)
        return gradient, low, high, None, None, None


def range_gradient(
    gradient: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor | None, codes: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    r"""The gradient of the loss with respect to the lowest and the highest value of the range.

    A clipped value equals a bound, and its gradient goes to that bound. Between the bounds the rounded value depends on
    the scale: ``d x_q / d scale = round(x / scale) - x / scale``, with
    ``scale = (high - low) / (highest code - lowest code)``.

    Papers: Esser et al., "Learned Step Size Quantization", https://arxiv.org/abs/1902.08153 (2020), for ``low = 0``;
    Bhalgat et al., "LSQ+: Improving low-bit quantization through learnable offsets and better initialization",
    https://arxiv.org/abs/2004.09576 (2020). They state it for scale and offset; the chain rule gives this form.

    Args:
        gradient: of the loss with respect to the rounded values, the shape of ``x``.
        x: the values before rounding.
        scale: step between two values, a scalar.
        zero_point: code of the value zero, a scalar; None for 0.
        codes: the lowest and the highest code.

    Returns:
        Two float32 scalars.

    >>> low, high = range_gradient(torch.ones(2), torch.tensor([0.25, 9.0]), torch.tensor(1.0), None, (0, 5))
    >>> low.item(), high.item()  # 0.25 is rounded down by a quarter of a step, 9 is clipped
    (0.0500..., 0.9499...)
    """
    steps, gradient = x.float() * (1 / scale), gradient.float()
    rounded = steps.round()
    unclipped, (lowest, highest) = rounded if zero_point is None else rounded + zero_point, codes
    below, above = unclipped < lowest, unclipped > highest
    moved = (gradient * (rounded - steps)).masked_fill(below | above, 0).sum() / (highest - lowest)
    return (gradient * below).sum() - moved, (gradient * above).sum() + moved


@torch.no_grad()
def row_scales(x: Tensor, bits: int) -> Tensor:
    """The step of a symmetric grid for each row: ``max |x| / (2^(bits - 1) - 1)`` along the last dimension.

    Args:
        x: ``(..., n)``.
        bits: of the grid.

    Returns:
        ``(..., 1)`` in float32. A row of zeros has the smallest scale, as an input of integer kernels needs one.

    >>> row_scales(torch.tensor([[0.5, -3.5], [0.0, 0.0]]), 4)
    tensor([[5.0000e-01],
            [1.1921e-07]])
    """
    largest = x.float().abs().amax(-1, keepdim=True) if x.shape[-1] else x.new_zeros((*x.shape[:-1], 1)).float()
    return largest.div_(2 ** (bits - 1) - 1).clamp_(min=torch.finfo(torch.float32).eps)


def _rounded(x: Tensor, scale: Tensor, zero_point: Tensor | None, codes: tuple[int, int]) -> Tensor:
    rounded = x.float().mul(1 / scale).round_()
    if zero_point is None:
        return rounded.clamp_(*codes).mul_(scale).to(x.dtype)
    return rounded.add_(zero_point).clamp_(*codes).sub_(zero_point).mul_(scale).to(x.dtype)
