"""Patterns: weights that are masked together.

A pattern divides a weight into units, each of which is masked or kept whole. :meth:`Pattern.units` turns the scores of
weights into scores of units, :meth:`Pattern.spread` turns the units that are kept into a mask. Your own pattern is a
subclass of :class:`Pattern`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_compress.arguments import check_count, check_fraction

__all__ = ["NM", "Block", "Pattern", "Unstructured", "sparsity_of"]


class Pattern(ABC):
    """Weights that are masked together: the base of every pattern.

    All tensors have the shape of a weight with the outputs first: ``(out, in, ...)``. Where a weight is sharded over
    processes, they are shards.
    """

    @property
    def sparsity(self) -> float | None:
        """The only sparsity that this pattern can have; None if it can have any, as by default."""
        return None

    @property
    def outputs(self) -> int | None:
        """Number of outputs that a unit spans: any run of as many has whole units. None, the default: all of them."""
        return None

    def check(self, name: str, shape: torch.Size) -> None:
        """Raise ValueError, naming the weight and the fix, if a weight of this shape has no such units."""
        return

    @abstractmethod
    def units(self, scores: Tensor) -> Tensor:
        """Scores of weights -> scores of units. Units with score infinity are never masked."""

    @abstractmethod
    def spread(self, kept: Tensor, shape: torch.Size) -> Tensor:
        """True for each unit that is kept -> True for each weight that is kept, of ``shape``."""

    def broken(self, kept: Tensor, strength: float) -> int:
        """Count the groups of a mask that break the promise of this pattern; 0 by default, a pattern without one.

        The promise is verified at the end of ``fit``, and after every update under ``Trainer(detect_anomaly=True)``.

        Args:
            kept: True for each weight that is kept.
            strength: strength of the schedule at the last update; at 1 the asked sparsity is reached.
        """
        return 0


@dataclass(frozen=True)
class Unstructured(Pattern):
    """Every weight by itself: any sparsity and the best accuracy; files become smaller, dense kernels not faster."""

    @property
    def outputs(self) -> int:
        return 1

    def units(self, scores: Tensor) -> Tensor:
        return scores

    def spread(self, kept: Tensor, shape: torch.Size) -> Tensor:
        return kept


@dataclass(frozen=True)
class NM(Pattern):
    """At most ``n`` of every ``m`` consecutive inputs of an output are kept.

    Groups of ``m`` lie along dimension 1, the inputs of linear and convolution layers. Sparse tensor cores run 2:4.

    Paper: Mishra et al., "Accelerating Sparse Deep Neural Networks", https://arxiv.org/abs/2104.08378 (2021).

    Args:
        n: weights that are kept in each group.
        m: weights in each group. A weight with a number of inputs that it does not divide is left alone, as in the
            first layer of a network for images; one that ``include`` names is refused.

    Raises:
        ValueError: not ``0 < n < m``.
        TypeError: ``n`` or ``m`` is not an integer.

    >>> NM(2, 4).sparsity
    0.5
    >>> NM(1, 2).units(torch.tensor([[3.0, 1.0, 2.0, 5.0]])).tolist()
    [[inf, 1.0, 2.0, inf]]
    """

    n: int
    m: int

    def __post_init__(self) -> None:
        check_count(n=self.n, m=self.m)
        if not self.n < self.m:
            raise ValueError(f"need n < m, got n={self.n}, m={self.m}")

    @property
    def sparsity(self) -> float:
        return 1 - self.n / self.m

    @property
    def outputs(self) -> int:
        return 1

    def check(self, name: str, shape: torch.Size) -> None:
        if shape[1] % self.m:
            raise ValueError(
                f"need a number of inputs that {self.m} divides for pattern={self}, got {name!r} of shape "
                f"{tuple(shape)}: add it to exclude"
            )

    def units(self, scores: Tensor) -> Tensor:
        """Every weight is a unit; the best ``n`` of each group have score infinity."""
        groups = self._groups(scores)
        best = groups.topk(self.n, dim=-1).indices
        inputs_last = scores.movedim(1, -1)
        return groups.scatter(-1, best, math.inf).view(inputs_last.shape).movedim(-1, 1)

    def spread(self, kept: Tensor, shape: torch.Size) -> Tensor:
        return kept

    def broken(self, kept: Tensor, strength: float) -> int:
        """Count the groups with fewer than ``n`` kept weights, and at strength 1 those with more."""
        counts = self._groups(kept).sum(-1)
        wrong = counts != self.n if strength == 1 else counts < self.n
        return int(wrong.sum())

    def _groups(self, tensor: Tensor) -> Tensor:
        return tensor.movedim(1, -1).reshape(-1, self.m)


@dataclass(frozen=True)
class Block(Pattern):
    """Blocks of ``rows`` outputs by ``columns`` inputs are masked whole; a block's score is the sum of its weights'.

    A convolution's weight ``(out, in, h, w)`` is read as the matrix ``(out, in * h * w)``.

    Paper: Gray, Radford and Kingma, "GPU Kernels for Block-Sparse Weights" (2017); Narang, Undersander and Diamos,
    "Block-Sparse Recurrent Neural Networks", https://arxiv.org/abs/1711.02782 (2017).

    Args:
        rows: outputs in a block.
        columns: inputs in a block. A weight that blocks do not fill is left alone; one that ``include`` names is
            refused.

    Raises:
        ValueError: ``rows`` or ``columns`` is below 1.
        TypeError: ``rows`` or ``columns`` is not an integer.

    >>> Block(1, 2).units(torch.tensor([[3.0, 1.0, 2.0, 5.0]])).tolist()
    [[4.0, 7.0]]
    """

    rows: int
    columns: int

    def __post_init__(self) -> None:
        check_count(rows=self.rows, columns=self.columns)

    @property
    def outputs(self) -> int:
        return self.rows

    def check(self, name: str, shape: torch.Size) -> None:
        rows, columns = shape[0], math.prod(shape[1:])
        if rows % self.rows or columns % self.columns:
            raise ValueError(
                f"need a matrix that blocks of {self.rows} x {self.columns} fill for pattern={self}, got {name!r} as "
                f"{rows} x {columns}: add it to exclude"
            )

    def units(self, scores: Tensor) -> Tensor:
        rows, columns = scores.shape[0] // self.rows, math.prod(scores.shape[1:]) // self.columns
        return scores.reshape(rows, self.rows, columns, self.columns).sum(dim=(1, 3))

    def spread(self, kept: Tensor, shape: torch.Size) -> Tensor:
        return kept.repeat_interleave(self.rows, 0).repeat_interleave(self.columns, 1).reshape(shape)

    def broken(self, kept: Tensor, strength: float) -> int:
        """Count the blocks of which some weights are kept and others masked."""
        counts = self.units(kept.int())
        return int(((counts != 0) & (counts != self.rows * self.columns)).sum())


def sparsity_of(sparsity: float | None, pattern: Pattern) -> float:
    """The sparsity that is asked for: by default that of the pattern, else 0.9.

    Raises:
        ValueError: the pattern has another sparsity, or ``sparsity`` is out of its range.
    """
    if pattern.sparsity is not None:
        check_fraction(**{"pattern.sparsity": pattern.sparsity})
    if pattern.outputs is not None:
        check_count(**{"pattern.outputs": pattern.outputs})
    if sparsity is None:
        return 0.9 if pattern.sparsity is None else pattern.sparsity
    check_fraction(sparsity=sparsity)
    if pattern.sparsity is not None and sparsity != pattern.sparsity:
        raise ValueError(
            f"need sparsity={pattern.sparsity:g} for pattern={pattern}, got sparsity={sparsity!r}: leave sparsity out"
        )
    return sparsity
