"""Rounding of activations to a grid, and its gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["RoundStraightThrough", "RoundWithRange", "range_gradient"]


class RoundStraightThrough(torch.autograd.Function):
    """``(clamp(round(x / scale) + zero_point, 0, levels) - zero_point) * scale``; the gradient passes straight through.

    Its cost is passes over memory: four in place, six with a zero point, none backward. A zero point of None is 0.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor | None, levels: int) -> Tensor:
        return _rounded(x, scale, zero_point, levels)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        return gradient, None, None, None


class RoundWithRange(torch.autograd.Function):
    """:class:`RoundStraightThrough` with a gradient of the range: of its lowest and its highest value."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, low: Tensor, high: Tensor, scale: Tensor, zero_point: Tensor | None, levels: int
    ) -> Tensor:
        ctx.save_for_backward(x, scale, zero_point)
        ctx.levels = levels
        return _rounded(x, scale, zero_point, levels)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        x, scale, zero_point = ctx.saved_tensors
        low, high = range_gradient(gradient, x, scale, zero_point, ctx.levels)
        return gradient, low, high, None, None, None


def range_gradient(
    gradient: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor | None, levels: int
) -> tuple[Tensor, Tensor]:
    r"""The gradient of the loss with respect to the lowest and the highest value of the range.

    A clipped value equals a bound, and its gradient goes to that bound. Between the bounds the rounded value depends on
    the scale: ``d x_q / d scale = round(x / scale) - x / scale``, with ``scale = (high - low) / levels``.

    Papers: Esser et al., "Learned Step Size Quantization", https://arxiv.org/abs/1902.08153 (2020), for ``low = 0``;
    Bhalgat et al., "LSQ+: Improving low-bit quantization through learnable offsets and better initialization",
    https://arxiv.org/abs/2004.09576 (2020). They state it for scale and offset; the chain rule gives this form.

    Args:
        gradient: of the loss with respect to the rounded values, the shape of ``x``.
        x: the values before rounding.
        scale: step between two values, a scalar.
        zero_point: code of the value zero, a scalar; None for 0.
        levels: the largest code.

    Returns:
        Two float32 scalars.

    >>> low, high = range_gradient(torch.ones(2), torch.tensor([0.25, 9.0]), torch.tensor(1.0), None, 5)
    >>> low.item(), high.item()  # 0.25 is rounded down by a quarter of a step, 9 is clipped
    (0.0500..., 0.9499...)
    """
    steps, gradient = x.float() * (1 / scale), gradient.float()
    rounded = steps.round()
    codes = rounded if zero_point is None else rounded + zero_point
    below, above = codes < 0, codes > levels
    moved = (gradient * (rounded - steps)).masked_fill(below | above, 0).sum() / levels
    return (gradient * below).sum() - moved, (gradient * above).sum() + moved


def _rounded(x: Tensor, scale: Tensor, zero_point: Tensor | None, levels: int) -> Tensor:
    codes = x.float().mul(1 / scale).round_()
    if zero_point is None:
        return codes.clamp_(0, levels).mul_(scale).to(x.dtype)
    return codes.add_(zero_point).clamp_(0, levels).sub_(zero_point).mul_(scale).to(x.dtype)
