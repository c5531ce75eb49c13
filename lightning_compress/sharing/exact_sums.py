"""Exact sums: the sum of the values of each cluster, independent of the order of addition."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_compress.blocks import blocks

__all__ = ["cluster_sums", "places"]


def cluster_sums(
    values: Sequence[Tensor], codes: Sequence[Tensor], clusters: int, group: dist.ProcessGroup | None = None
) -> tuple[Tensor, Tensor]:
    r"""Sum and number of the values of each cluster of each codebook: ``s_k = sum_{i: code_i = k} x_i``.

    The values are rounded to multiples of a power of 2, so small that each keeps ``52 - log2(N)`` bits relative to the
    largest of the N values of a codebook, and so large that every partial sum is below ``2^53`` multiples. float64 adds
    these without rounding, so threads, devices and sharding do not change a bit of the result.

    Args:
        values: tensors ``(codebooks, ...)`` of any floating dtypes.
        codes: for each tensor, the cluster of every value, integers of 0 or more.
        clusters: number of clusters of a codebook; there are more where a code is larger.
        group: the processes that the values are sharded over; None if every process has all values.

    Returns:
        sums and counts, float64 ``(codebooks, clusters)``. The sum of a cluster with a value that is not finite is not
        finite.

    >>> cluster_sums([torch.tensor([[1.0, 2.0, 5.0]])], [torch.tensor([[0, 0, 2]])], 3)
    (tensor([[3., 0., 5.]], dtype=torch.float64), tensor([[2., 0., 1.]], dtype=torch.float64))
    """
    clusters = _at_least(clusters, codes, group)
    counts = _added([_bins(code, clusters) for whole in codes for (code,) in blocks(whole)])
    ends = [end.double() for value in values if value.numel() for end in _extremes(value)]
    largest = torch.stack([counts.new_zeros(len(counts)), *ends]).abs().amax(0)
    if group is not None:
        dist.all_reduce(counts, group=group)
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    numbers = zip(largest.tolist(), counts.sum(1).tolist(), strict=True)
    units = counts.new_tensor([[_unit(end, int(count))] for end, count in numbers])
    sums = _added(
        [
            _bins(code, clusters, value.flatten(1).mul(1 / units).round_())  # a copy, in float64
            for whole in zip(values, codes, strict=True)
            for value, code in blocks(*whole)
        ]
    )
    if group is not None:
        dist.all_reduce(sums, group=group)
    return sums * units, counts


def _at_least(clusters: int, codes: Sequence[Tensor], group: dist.ProcessGroup | None) -> int:
    """The number of clusters, or that of the codes: a codebook may be left from a time of more clusters."""
    ends = [code.amax().long() for code in codes if code.numel()]
    largest = torch.stack([codes[0].new_zeros((), dtype=torch.long), *ends]).amax()
    if group is not None:
        dist.all_reduce(largest, dist.ReduceOp.MAX, group=group)
    return max(clusters, int(largest) + 1)


def places(codes: Tensor, clusters: int) -> Tensor:
    """Places of codes ``(codebooks, ...)`` in a table of all codebooks, one after the other; flat.

    >>> places(torch.tensor([[0, 1], [0, 1]]), 3).tolist()
    [0, 1, 3, 4]
    """
    if len(codes) == 1:
        return codes.flatten()
    first = torch.arange(0, len(codes) * clusters, clusters, dtype=torch.int32, device=codes.device)
    return codes.flatten(1).add(first[:, None]).flatten()


def _bins(codes: Tensor, clusters: int, values: Tensor | None = None) -> Tensor:
    """Number of the codes of each cluster, or the sum of their values; float64 ``(codebooks, clusters)``."""
    weights = None if values is None else values.flatten()
    bins = torch.bincount(places(codes, clusters), weights, minlength=len(codes) * clusters)
    return bins.view(len(codes), clusters).double()


def _extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Smallest and largest value of each codebook."""
    if len(values) > 1:
        smallest, largest = torch.aminmax(values.flatten(1), dim=1)
        return smallest, largest
    smallest, largest = torch.aminmax(values)  # many times as fast as along a dimension
    return smallest[None], largest[None]


def _added(tensors: Sequence[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(list(tensors)).sum(0)


def _unit(largest: float, count: int) -> float:
    """A power of two such that ``count`` numbers up to ``largest`` sum to less than ``2^53`` times it."""
    if not math.isfinite(largest) or largest == 0:
        return 1.0
    return math.ldexp(1.0, max(-1022, math.frexp(largest)[1] + math.frexp(count)[1] - 52))
