"""Clusters: the weights of codebooks, grouped by the value that they share.

The code of a weight is the number of its cluster, from 1; code 0 is a weight that is zero. The value of
code 0 is always zero. Row ``c`` of a tensor ``(codebooks, ...)`` belongs to codebook ``c``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_compress.blocks import blocks
from lightning_compress.sharing.exact_sums import places
from lightning_compress.sharing.kmeans import assign

__all__ = ["MANY", "Clusters", "assign_", "code_dtype", "look_up", "look_up_", "nonzero"]

MANY = 255
"""Values at the start of a ramp: with zero, the codes of one byte."""


def code_dtype(entries: int) -> torch.dtype:
    """The integers that hold the codes of a number of values."""
    return torch.uint8 if entries <= MANY else torch.int32


@dataclass(frozen=True)
class Clusters:
    """Sums and sizes of the clusters of codebooks.

    Attributes:
        sums: sum of the weights of each code, float64 ``(codebooks, codes)``.
        counts: number of the weights of each code, float64 ``(codebooks, codes)``.
    """

    sums: Tensor
    counts: Tensor

    @property
    def values(self) -> Tensor:
        """Value of each code: the mean of its weights, 0 for code 0; ``(codebooks, codes)``.

        >>> Clusters(torch.tensor([[0.0, 6.0, 0.0]]), torch.tensor([[5.0, 3.0, 0.0]])).values.tolist()
        [[0.0, 2.0, 0.0]]
        """
        values = self.sums / self.counts.clamp(min=1)
        values[:, 0] = 0
        return values

    def unfit(self, entries: int) -> Tensor:
        """True for each codebook of more than ``entries`` values, zero included, and for each of zeros alone.

        >>> Clusters(torch.zeros(2, 3), torch.tensor([[1.0, 1.0, 1.0], [3.0, 0.0, 0.0]])).unfit(2).tolist()
        [True, True]
        """
        used = self.counts > 0
        return (used.sum(1) > entries) | ~used[:, 1:].any(1)

    def rows(self) -> Iterator[Clusters]:
        """The clusters of each codebook."""
        return map(Clusters, torch.split(self.sums, 1), torch.split(self.counts, 1))

    def nearest(self, weights: Tensor) -> Tensor:
        """Code of the nearest value among the clusters that have weights, never 0; 0 if no cluster has any.

        Args:
            weights: ``(codebooks, ...)``.

        >>> clusters = Clusters(torch.tensor([[0.0, 6.0, -4.0]]), torch.tensor([[5.0, 3.0, 1.0]]))
        >>> clusters.nearest(torch.tensor([[0.1, -3.0]]))
        tensor([[1, 2]], dtype=torch.int32)
        """
        if len(self.counts) > 1 and not self.sums.isfinite().all():  # NaN would sort behind the codes without weights
            return torch.cat(
                [row.nearest(mine) for row, mine in zip(self.rows(), torch.split(weights, 1), strict=True)]
            )
        used = self.counts[:, 1:] > 0
        codes = used.any(0).nonzero().squeeze(1)
        if not len(codes):
            return torch.zeros_like(weights, dtype=torch.int32)
        used = used[:, codes]  # of several codebooks, one may lack a code: such are sorted to the end of its row
        ascending, order = self.values[:, codes + 1].to(weights.dtype).masked_fill(~used, torch.inf).sort()
        return look_up((codes[order] + 1).mul_(used.gather(1, order)).int(), assign(weights, ascending))


def assign_(codes: Tensor, weights: Tensor, nearest: Callable[[Tensor], Tensor]) -> None:
    """Overwrite codes by those of the nearest values, block by block; the code of a weight that is zero becomes 0.

    Args:
        codes: integers of the shape of the weights.
        weights: of any shape.
        nearest: weights -> codes.

    >>> codes = torch.zeros(3, dtype=torch.uint8)
    >>> assign_(codes, torch.tensor([0.0, 1.0, 2.0]), lambda weights: weights.int() + 1); codes.tolist()
    [0, 2, 3]
    """
    for code, part in blocks(codes, weights):
        code.copy_(nearest(part).mul_(part != 0))


def nonzero(tensors: Iterable[Tensor], total: int) -> tuple[Tensor, int]:
    """The values that are not zero, and the number of those that are.

    Args:
        tensors: of any shapes, at least one.
        total: number of all values.

    >>> nonzero([torch.tensor([0.0, 2.0]), torch.tensor([[3.0]])], 3)
    (tensor([2., 3.]), 1)
    """
    values, count = torch.empty(0), 0
    for tensor in tensors:
        values = values if count else tensor.new_empty(total)
        for (part,) in blocks(tensor):
            found = part[part != 0]
            values[count : count + len(found)] = found
            count += len(found)
    return values[:count], total - count


def look_up(table: Tensor, codes: Tensor) -> Tensor:
    """``table[c, codes[c]]`` for each codebook ``c``, several times as fast.

    Args:
        table: ``(codebooks, entries)``.
        codes: ``(codebooks, ...)``.

    >>> look_up(torch.tensor([[0.0, 0.5]]), torch.tensor([[1, 0]])).tolist()
    [[0.5, 0.0]]
    """
    return table.flatten().index_select(0, places(codes, table.shape[1]).int()).view(codes.shape)


def look_up_(out: Tensor, table: Tensor, codes: Tensor) -> None:
    """Overwrite ``out`` by the entries of :func:`look_up`, block by block.

    >>> out = torch.zeros(1, 2)
    >>> look_up_(out, torch.tensor([[0.0, 0.5]]), torch.tensor([[1, 0]])); out.tolist()
    [[0.5, 0.0]]
    """
    table = table.to(out.dtype)
    for part, code in blocks(out, codes):
        part.copy_(look_up(table, code))
