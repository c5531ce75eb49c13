"""Grids: the few values that a quantized weight can take.

Weights that share a scale are a *row* of their weight; a :class:`Granularity` says which those are. Zero is on every
grid, so that pruned weights stay zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Granularity", "Grid", "PerChannel", "PerGroup", "PerTensor", "precise"]


class Granularity(Protocol):
    """Which weights share a scale; inherit from it, so that a YAML takes your class for a granularity."""

    def check(self, name: str, shape: torch.Size) -> None:
        """Raise ValueError if the weight ``name`` of this shape cannot be cut into such rows."""

    def rows(self, weight: Tensor) -> Tensor:
        """The weight as ``(rows, weights in a row)``, a view where its memory allows."""


@dataclass(frozen=True)
class PerTensor(Granularity):
    """One scale for the whole weight.

    >>> PerTensor().rows(torch.zeros(8, 4, 3, 3)).shape
    torch.Size([1, 288])
    """

    def check(self, name: str, shape: torch.Size) -> None:
        return

    def rows(self, weight: Tensor) -> Tensor:
        return weight.reshape(1, -1)


@dataclass(frozen=True)
class PerChannel(Granularity):
    """One scale for each index of the first dimension: the output channels of linear layers and convolutions.

    A weight ``(in, out)``, of transformers' ``Conv1D``, is seen as ``(out, in)`` here and in what follows.

    >>> PerChannel().rows(torch.zeros(8, 4, 3, 3)).shape
    torch.Size([8, 36])
    """

    def check(self, name: str, shape: torch.Size) -> None:
        return

    def rows(self, weight: Tensor) -> Tensor:
        return weight.reshape(weight.shape[0], -1)


@dataclass(frozen=True)
class PerGroup(Granularity):
    """One scale for every ``size`` consecutive inputs of an output: what four-bit kernels of linear layers read.

    Args:
        size: weights in a group; must divide the inputs of every target.

    Raises:
        ValueError: ``size`` is below 1.

    >>> PerGroup(32).rows(torch.zeros(8, 64)).shape
    torch.Size([16, 32])
    """

    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"need size >= 1, got size={self.size}")

    def check(self, name: str, shape: torch.Size) -> None:
        inputs = math.prod(shape[1:])
        if inputs % self.size:
            raise ValueError(
                f"need a number of inputs that {self.size} divides for granularity={self}, got {name!r} with {inputs}: "
                "add it to exclude or choose another size"
            )

    def rows(self, weight: Tensor) -> Tensor:
        return weight.reshape(-1, self.size)


@dataclass(frozen=True, eq=False)
class Grid:
    """Evenly spaced values: ``(q - zero_point) * scale`` for integers ``q`` in [low, high], with one scale per row.

    Attributes:
        scale: ``(rows, 1)``, above 0.
        zero_point: ``(rows, 1)``, the code of the value zero: an integer in [low, high] in the dtype of ``scale``.
        low: smallest code.
        high: largest code.
        transposed: whether the weight is ``(in, out)``; rows are those of ``(out, in, ...)``.

    >>> grid = Grid(torch.tensor([[0.5]]), torch.tensor([[0.0]]), -1, 1)
    >>> grid.project(torch.tensor([[0.2, 0.3, -7.0]])).tolist()
    [[0.0, 0.5, -0.5]]
    """

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int
    transposed: bool = False

    @property
    def bits(self) -> int:
        """What it takes to write a code down.

        >>> Grid(torch.ones(1, 1), torch.zeros(1, 1), -7, 7).bits
        4
        """
        return (self.high - self.low).bit_length()

    def codes(self, weight: Tensor) -> Tensor:
        """Integers of the values nearest to ``weight``, in its shape and dtype.

        ``clamp(round(w * (1 / scale)) + zero_point, low, high)``, operation by operation what
        ``torch.fake_quantize_per_channel_affine`` computes, so that both give the same bits.
        """
        codes = (self._rows(weight) * (1 / self.scale)).round_().add_(self.zero_point).clamp_(self.low, self.high)
        return self._whole(codes, weight.shape)

    def values(self, codes: Tensor) -> Tensor:
        """The values that integer codes stand for, in the shape of ``codes``."""
        return self._whole((self._rows(codes) - self.zero_point) * self.scale, codes.shape)

    def project(self, weight: Tensor) -> Tensor:
        """The values nearest to ``weight``."""
        return self.values(self.codes(weight))

    def granularity(self, shape: torch.Size) -> Granularity:
        """Which weights share a scale, of a weight of this shape."""
        if len(self.scale) == 1:
            return PerTensor()
        channels = shape[-1] if self.transposed else shape[0]
        return PerChannel() if len(self.scale) == channels else PerGroup(math.prod(shape) // len(self.scale))

    def part(self, granularity: Granularity, shape: torch.Size, cut: Callable[[Tensor], Tensor]) -> Grid:
        """The grid of what ``cut`` leaves of a weight of this shape; the first weight of each row that is left decides.

        >>> grid = Grid(torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1), -1, 1)
        >>> grid.part(PerChannel(), torch.Size([2, 3]), lambda whole: whole[1:, :2]).scale
        tensor([[2.]])
        """
        size = math.prod(shape) // len(self.scale)

        def left(of_rows: Tensor) -> Tensor:
            return granularity.rows(self.outputs_first(cut(self._whole(of_rows.expand(-1, size), shape))))[:, :1]

        return replace(self, scale=left(self.scale), zero_point=left(self.zero_point))

    def outputs_first(self, tensor: Tensor) -> Tensor:
        """A tensor of the weight's shape, seen as ``(out, in, ...)``."""
        return tensor.t() if self.transposed else tensor

    def _rows(self, weight: Tensor) -> Tensor:
        return self.outputs_first(weight).reshape(len(self.scale), -1)

    def _whole(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The rows put together again to a weight of this shape."""
        return rows.reshape(shape[::-1]).t() if self.transposed else rows.reshape(shape)


def precise(tensor: Tensor) -> Tensor:
    """``tensor`` in at least float32: grids are not computed in half precision."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
