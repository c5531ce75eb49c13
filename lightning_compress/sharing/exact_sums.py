"""Exact sums: the sum of the values of each cluster, independent of the order of addition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_compress.blocks import blocks

__all__ = ["cluster_sums"]


def cluster_sums(
    values: Sequence[Tensor], codes: Sequence[Tensor], clusters: int, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor]:
    r"""Sum and number of the values of each cluster: ``s_k = sum_{i: code_i = k} x_i``.

    The values are rounded to multiples of a power of 2, so small that each keeps ``52 - log2(N)`` bits relative to the
    largest of N values, and so large that every partial sum is below ``2^53`` multiples. float64 adds these without
    rounding, so threads, devices and sharding do not change a bit of the result.

    Args:
        values: tensors of any shapes and floating dtypes.
        codes: for each tensor, the cluster of every value, integers in [0, clusters).
        clusters: number of clusters.
        group: the processes that the values are sharded over; None if every process has all values.

    Returns:
        sums and counts, float64 ``(clusters,)``. The sum of a cluster with a value that is not finite is not finite.

    >>> cluster_sums([torch.tensor([1.0, 2.0, 5.0])], [torch.tensor([0, 0, 2])], 3)
    (tensor([3., 0., 5.], dtype=torch.float64), tensor([2., 0., 1.], dtype=torch.float64))
    """
    counts = torch.stack([_bins(code, clusters) for code in codes]).sum(0).double()
    ends = [end.double() for value in values if value.numel() for end in torch.aminmax(value)]
    largest = torch.stack([counts.new_zeros(()), *ends]).abs().amax()
    if group is not None:
        dist.all_reduce(counts, group=group)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    unit = _unit(float(largest), int(counts.sum()))
    multiples = [
        torch.bincount(code.flatten(), value.flatten().double().mul(1 / unit).round_(), minlength=clusters)
        for whole in zip(values, codes, strict=True)
        for value, code in blocks(*whole)
    ]
    sums = torch.stack(multiples).sum(0)
    if group is not None:
        dist.all_reduce(sums, group=group)
    return sums * unit, counts


def _bins(codes: Tensor, clusters: int) -> Tensor:
    """Number of the values of each cluster."""
    return torch.stack([torch.bincount(code.flatten(), minlength=clusters) for (code,) in blocks(codes)]).sum(0)


def _unit(largest: float, count: int) -> float:
    """A power of two such that ``count`` numbers up to ``largest`` sum to less than ``2^53`` times it."""
    if not math.isfinite(largest) or largest == 0:
        return 1.0
    return math.ldexp(1.0, max(-1022, math.frexp(largest)[1] + math.frexp(count)[1] - 52))
