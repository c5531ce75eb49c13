"""Patterns: which weights are pruned together.

A pattern turns scores of weights into scores of units, one per group of weights that lives or dies together
(:meth:`Pattern.units`), and the units that are kept back into a mask (:meth:`Pattern.spread`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["NM", "Block", "Pattern", "Unstructured"]


class Pattern(Protocol):
    """What may be pruned, and in which groups; inherit from it, so that a YAML takes your class for a pattern."""

    @property
    def sparsity(self) -> float | None:
        """The only sparsity that this pattern can have; None if any."""

    def check(self, name: str, shape: torch.Size) -> None:
        """Raise ValueError if the weight ``name`` of this shape cannot be cut into this pattern."""

    def units(self, scores: Tensor) -> Tensor:
        """Scores of weights -> scores of units."""

    def spread(self, kept: Tensor, shape: torch.Size) -> Tensor:
        """Which units are kept -> which weights are kept, of ``shape``."""


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Every weight on its own: any sparsity, the best accuracy; smaller files, no faster dense kernels."""

    @property
    def sparsity(self) -> None:
        return None

    def check(self, name: str, shape: torch.Size) -> None:
        return

    def units(self, scores: Tensor) -> Tensor:
        return scores

    def spread(self, kept: Tensor, shape: torch.Size) -> Tensor:
        return kept


@dataclass(frozen=True)
class NM(Pattern):
    """At most ``n`` of every ``m`` consecutive inputs of an output are non-zero.

    Groups lie along dimension 1, the inputs of linear and convolution layers. 2:4 is what sparse tensor cores run.

    Paper: Mishra et al., "Accelerating Sparse Deep Neural Networks", https://arxiv.org/abs/2104.08378 (2021).

    Args:
        n: weights kept in each group.
        m: size of a group; must divide the number of inputs of every target.

    Raises:
        ValueError: not ``0 < n < m``.

    >>> NM(2, 4).sparsity
    0.5
    >>> NM(1, 2).units(torch.tensor([[3.0, 1.0, 2.0, 5.0]])).tolist()
    [[inf, 1.0, 2.0, inf]]
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        if not 0 < self.n < self.m:
            raise ValueError(f"need 0 < n < m, got n={self.n}, m={self.m}")

    @property
    def sparsity(self) -> float:
        return 1 - self.n / self.m

    def check(self, name: str, shape: torch.Size) -> None:
        if shape[1] % self.m:
            raise ValueError(
                f"need a number of inputs that {self.m} divides for pattern={self}, got {name!r} of shape "
                f"{tuple(shape)}: add it to exclude"
            )

    def units(self, scores: Tensor) -> Tensor:
        """The best ``n`` of each group cannot be pruned: their score is infinite."""
        inputs_last = scores.movedim(1, -1)
        groups = inputs_last.reshape(-1, self.m)
        best = groups.topk(self.n, dim=-1).indices
        return groups.scatter(-1, best, math.inf).view(inputs_last.shape).movedim(-1, 1)

    def spread(self, kept: Tensor, shape: torch.Size) -> Tensor:
        return kept


@dataclass(frozen=True)
class Block(Pattern):
    """Tiles of ``rows`` outputs by ``columns`` inputs live or die together; a tile's score is the sum of its weights'.

    A convolution's weight ``(out, in, h, w)`` is seen as the matrix ``(out, in * h * w)``.

    Paper: Gray, Radford and Kingma, "GPU Kernels for Block-Sparse Weights" (2017); Narang, Undersander and Diamos,
    "Block-Sparse Recurrent Neural Networks", https://arxiv.org/abs/1711.02782 (2017).

    Args:
        rows: outputs in a tile; must divide the outputs of every target.
        columns: inputs in a tile; must divide the inputs of every target.

    Raises:
        ValueError: ``rows`` or ``columns`` is below 1.

    >>> Block(1, 2).units(torch.tensor([[3.0, 1.0, 2.0, 5.0]])).tolist()
    [[4.0, 7.0]]
    """

    rows: int
    columns: int

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1:
            raise ValueError(f"need rows >= 1 and columns >= 1, got rows={self.rows}, columns={self.columns}")

    @property
    def sparsity(self) -> None:
        return None

    def check(self, name: str, shape: torch.Size) -> None:
        rows, columns = shape[0], math.prod(shape[1:])
        if rows % self.rows or columns % self.columns:
            raise ValueError(
                f"need a matrix that tiles of {self.rows} x {self.columns} fill for pattern={self}, got {name!r} as "
                f"{rows} x {columns}: add it to exclude"
            )

    def units(self, scores: Tensor) -> Tensor:
        rows, columns = scores.shape[0] // self.rows, math.prod(scores.shape[1:]) // self.columns
        return scores.reshape(rows, self.rows, columns, self.columns).sum(dim=(1, 3))

    def spread(self, kept: Tensor, shape: torch.Size) -> Tensor:
        return kept.repeat_interleave(self.rows, 0).repeat_interleave(self.columns, 1).reshape(shape)
