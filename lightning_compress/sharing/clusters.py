"""Clusters: the weights of one codebook, grouped by the value that they share.

The code of a weight is the number of its cluster, from 1; code 0 is a weight that is zero. The value of
code 0 is always zero.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_compress.blocks import blocks
from lightning_compress.sharing.kmeans import assign

__all__ = ["Clusters", "assign_", "look_up", "look_up_", "nonzero"]


@dataclass(frozen=True)
class Clusters:
    """Sums and sizes of the clusters of a codebook.

    Attributes:
        sums: sum of the weights of each code, float64 ``(codes,)``.
        counts: number of the weights of each code, float64 ``(codes,)``.
    """

    sums: Tensor
    counts: Tensor

    @property
    def values(self) -> Tensor:
        """Value of each code: the mean of its weights, 0 for code 0; ``(codes,)``.

        >>> Clusters(torch.tensor([0.0, 6.0, 0.0]), torch.tensor([5.0, 3.0, 0.0])).values.tolist()
        [0.0, 2.0, 0.0]
        """
        values = self.sums / self.counts.clamp(min=1)
        values[0] = 0
        return values

    @property
    def used(self) -> int:
        """Number of codes that have weights, code 0 included."""
        return int(torch.count_nonzero(self.counts))

    @property
    def all_zero(self) -> bool:
        """Whether every weight has code 0."""
        return not bool(self.counts[1:].any())

    def nearest(self, weights: Tensor) -> Tensor:
        """Code of the nearest value among the clusters that have weights, never 0; 0 if no cluster has any.

        >>> Clusters(torch.tensor([0.0, 6.0, -4.0]), torch.tensor([5.0, 3.0, 1.0])).nearest(torch.tensor([0.1, -3.0]))
        tensor([1, 2], dtype=torch.int32)
        """
        codes = self.counts[1:].nonzero().squeeze(1).int() + 1
        if not len(codes):
            return torch.zeros_like(weights, dtype=torch.int32)
        ascending, order = self.values[codes].to(weights.dtype).sort()
        return look_up(codes[order], assign(weights, ascending))


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
    """``table[codes]``, several times as fast.

    >>> look_up(torch.tensor([0.0, 0.5]), torch.tensor([[1, 0]])).tolist()
    [[0.5, 0.0]]
    """
    return table.index_select(0, codes.flatten().int()).view(codes.shape)


def look_up_(out: Tensor, table: Tensor, codes: Tensor) -> None:
    """``out = table[codes]`` in place, block by block.

    >>> out = torch.zeros(1, 2)
    >>> look_up_(out, torch.tensor([0.0, 0.5]), torch.tensor([[1, 0]])); out.tolist()
    [[0.5, 0.0]]
    """
    table = table.to(out.dtype)
    for part, code in blocks(out, codes):
        part.copy_(look_up(table, code))
