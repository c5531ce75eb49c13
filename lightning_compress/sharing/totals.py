"""Totals: sums over the members of every cluster, the same in whatever order they are added."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["totals"]


def totals(
    values: Sequence[Tensor], codes: Sequence[Tensor], clusters: int, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor]:
    r"""Sum and number of the values of each cluster: ``s_k = sum_{i: code_i = k} x_i``.

    Values are added as multiples of one small power of two, of which every partial sum is a whole number below
    ``2^53``: float64 adds these without rounding, so that neither threads nor devices nor the cut into shards change a
    bit of the result. With N values that leaves each ``52 - log2(N)`` bits, relative to the largest.

    Args:
        values: tensors of any shapes and floating dtypes.
        codes: for each of them, the cluster of every value, as integers in [0, clusters).
        clusters: how many clusters there are.
        group: the processes that the values are sharded over; None if every process has them all.

    Returns:
        sums and counts, float64 ``(clusters,)``. Sums of what is not finite are not finite.

    >>> totals([torch.tensor([1.0, 2.0, 5.0])], [torch.tensor([0, 0, 2])], 3)
    (tensor([3., 0., 5.], dtype=torch.float64), tensor([2., 0., 1.], dtype=torch.float64))
    """
    counts = torch.stack([torch.bincount(code.flatten(), minlength=clusters) for code in codes]).sum(0).double()
    ends = [end.double() for value in values if value.numel() for end in torch.aminmax(value)]
    largest = torch.stack([counts.new_zeros(()), *ends]).abs().amax()
    if group is not None:
        dist.all_reduce(counts, group=group)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    unit = _unit(float(largest), int(counts.sum()))
    sums = torch.stack(
        [
            torch.bincount(code.flatten(), value.flatten().double().mul_(1 / unit).round_(), minlength=clusters)
            for value, code in zip(values, codes, strict=True)
        ]
    ).sum(0)
    if group is not None:
        dist.all_reduce(sums, group=group)
    return sums * unit, counts


def _unit(largest: float, count: int) -> float:
    """A power of two, so coarse that ``count`` multiples of it up to ``largest`` sum to less than ``2^53`` of it."""
    if not math.isfinite(largest) or largest == 0:
        return 1.0
    return math.ldexp(1.0, max(-1022, math.frexp(largest)[1] + math.frexp(count)[1] - 52))
