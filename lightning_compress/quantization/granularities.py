"""Granularities: which weights of a tensor share a scale.

The weights that share a scale are a *row*. A granularity of your own is a frozen dataclass that inherits from
:class:`Granularity`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_compress.arguments import check_count

__all__ = ["Granularity", "PerChannel", "PerGroup", "PerTensor"]


class Granularity(ABC):
    """Splits a weight into rows; the weights of a row share a scale."""

    @abstractmethod
    def check(self, name: str, shape: torch.Size) -> None:
        """Raise ValueError, naming the weight and the fix, if a weight of this shape has no such rows.

        Args:
            name: of the weight in the state dict.
            shape: of the weight, outputs first.
        """

    @abstractmethod
    def rows(self, weight: Tensor) -> Tensor:
        """Reshape a weight, outputs first, to ``(rows, weights in a row)``: a view if its memory layout allows it."""


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
    """One scale per index of the first dimension: the output channels of linear layers and convolutions.

    The weight of transformers' ``Conv1D`` is ``(in, out)``; quantization transposes it first.

    >>> PerChannel().rows(torch.zeros(8, 4, 3, 3)).shape
    torch.Size([8, 36])
    """

    def check(self, name: str, shape: torch.Size) -> None:
        return

    def rows(self, weight: Tensor) -> Tensor:
        return weight.reshape(weight.shape[0], -1)


@dataclass(frozen=True)
class PerGroup(Granularity):
    """One scale per ``size`` consecutive inputs of an output, the layout of four-bit kernels for linear layers.

    Args:
        size: weights in a group. A weight with a number of inputs that it does not divide is left alone; one that
            ``include`` names is refused.

    Raises:
        ValueError: ``size`` is below 1.
        TypeError: ``size`` is not an integer.

    >>> PerGroup(32).rows(torch.zeros(8, 64)).shape
    torch.Size([16, 32])
    """

    size: int

    def __post_init__(self) -> None:
        check_count(size=self.size)

    def check(self, name: str, shape: torch.Size) -> None:
        inputs = math.prod(shape[1:])
        if inputs % self.size:
            raise ValueError(
                f"need a number of inputs that {self.size} divides for granularity={self}, got {name!r} with {inputs}: "
                "add it to exclude or choose another size"
            )

    def rows(self, weight: Tensor) -> Tensor:
        return weight.reshape(-1, self.size)
