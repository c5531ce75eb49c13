"""K-means of scalars: the codebook by which many weights share few values.

On a line, the cluster of a centre is an interval. With the values sorted and their prefix sums at hand, a step of
Lloyd's algorithm is a few binary searches, whatever the number of values, and no matrix of distances is formed::

    boundary_k = (c_k + c_{k+1}) / 2        where value k's interval ends
    c_k        = mean of the values between boundary_{k-1} and boundary_k

Initialisations share one signature, ``Init = Callable[[Tensor, int], Tensor]``: sorted values, number of clusters ->
centres, ascending.

Papers: Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28 (1982); Han, Mao and
Dally, "Deep Compression", https://arxiv.org/abs/1510.00149 (2016).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Init", "assign", "density", "fit", "linear", "plus_plus"]

Init: TypeAlias = Callable[[Tensor, int], Tensor]
_Array: TypeAlias = NDArray[np.floating]
_Indices: TypeAlias = NDArray[np.integer]

_SAMPLE = 1 << 16
_CELLS = 1 << 12
_COMPARED = 16  # so many boundaries are compared with one after the other
_PATIENCE = 1000  # steps of Lloyd's algorithm; with hundreds of clusters the last digits take very many


def linear(ordered: Tensor, clusters: int) -> Tensor:
    """Evenly from the least to the greatest value, so that the rare large weights keep centres of their own.

    Args:
        ordered: values, ascending, ``(N,)``.
        clusters: how many centres.

    >>> linear(torch.tensor([0.0, 0.1, 0.2, 4.0]), 3).tolist()
    [0.0, 2.0, 4.0]
    """
    return torch.linspace(float(ordered[0]), float(ordered[-1]), clusters, dtype=ordered.dtype)


def density(ordered: Tensor, clusters: int) -> Tensor:
    """Evenly over the ranks, so that every cluster starts with equally many values.

    Args:
        ordered: values, ascending, ``(N,)``.
        clusters: how many centres.

    >>> density(torch.tensor([0.0, 0.1, 0.2, 4.0]), 2).tolist()
    [0.10000000149011612, 4.0]
    """
    return ordered[(torch.arange(clusters) + 0.5).mul(len(ordered) / clusters).long()]


def plus_plus(ordered: Tensor, clusters: int, seed: int = 0) -> Tensor:
    """Drawn one after the other with probability proportional to the squared distance from those drawn before.

    Of more than 65,536 values every so-manieth takes part. ``functools.partial`` sets another seed.

    Paper: Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA (2007).

    Args:
        ordered: values, ascending, ``(N,)``.
        clusters: how many centres.
        seed: of the draws.

    >>> plus_plus(torch.tensor([0.0, 0.0, 4.0, 4.0]), 2).tolist()
    [0.0, 4.0]
    """
    values = ordered[:: max(1, len(ordered) // _SAMPLE)].double()
    generator = torch.Generator().manual_seed(seed)
    distances = torch.ones_like(values)
    centres: list[Tensor] = []
    for _ in range(clusters):
        drawn = torch.multinomial(distances, 1, generator=generator)[0] if distances.any() else 0
        centres.append(values[drawn])
        squares = (values - values[drawn]).square()
        distances = torch.minimum(distances, squares) if len(centres) > 1 else squares
    return torch.stack(centres).sort().values.to(ordered.dtype)


def fit(values: Tensor, clusters: int, init: Init = linear) -> Tensor:
    r"""Find centres for which the squared distances to the nearest sum to the least.

    The result depends on the values alone, not on their order, their device or the number of threads.

    Args:
        values: of any shape and floating dtype.
        clusters: how many centres.
        init: where to start from.

    Returns:
        the centres, ascending, of the dtype and on the device of ``values``: ``clusters`` of them, none idle, or all
        distinct values where there are no more.

    Raises:
        ValueError: ``clusters`` is below 1, or a value is not finite.

    >>> fit(torch.tensor([5.0, 1.0, 0.0, 6.0]), 2).tolist()
    [0.5, 5.5]
    """
    if clusters < 1:
        raise ValueError(f"need clusters >= 1, got clusters={clusters}")
    ordered = _sorted(values)
    if len(ordered) and not np.isfinite(ordered[[0, -1]]).all():  # NaN sorts last
        raise ValueError("need finite values to cluster, got NaN or infinity: the training has diverged")
    if np.count_nonzero(ordered[1:] != ordered[:-1]) < clusters:
        centres = np.unique(ordered)
    else:
        start = init(torch.from_numpy(ordered), clusters).double().numpy()
        centres = np.unique(_lloyd(ordered, start).astype(ordered.dtype))
    return torch.from_numpy(centres).to(values.device, values.dtype)


def assign(values: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest centre, the lesser of two that are equally near.

    Args:
        values: of any shape.
        codebook: centres, ascending, ``(K,)``.

    Returns:
        int32 tensor of the shape of ``values``.

    >>> assign(torch.tensor([[5.0, 1.0], [0.0, 6.0]]), torch.tensor([0.5, 5.5])).tolist()
    [[1, 0], [0, 1]]
    """
    wide = torch.promote_types(values.dtype, torch.float32)  # halfway between two bfloat16 there may be none
    between = codebook[:-1].to(wide).lerp(codebook[1:].to(wide), 0.5)
    values = values.to(wide)
    if len(between) < 2 or values.numel() < _CELLS or not values.is_cpu:
        return torch.bucketize(values, between, out_int32=True)
    if len(between) <= _COMPARED:
        return _passed(values, between)
    # A processor that guesses branches is slow in a binary search. Cut the line into cells, so small that no two
    # boundaries share one (as a rule): the cell of a value says which boundary to compare it with.
    places = _cells(between, between)
    if (places[1:] == places[:-1]).any():
        return torch.bucketize(values, between, out_int32=True)
    passed = torch.bucketize(torch.arange(_CELLS, dtype=torch.int32), places, out_int32=True)
    codes = passed.index_select(0, _cells(values.flatten(), between))
    ahead = torch.cat([between, between.new_full((1,), math.inf)]).index_select(0, codes)
    return codes.add_(values.flatten() > ahead).view(values.shape)


def _passed(values: Tensor, between: Tensor) -> Tensor:
    """How many boundaries each value has passed: comparisons in NumPy are as fast as memory."""
    flat = values.detach().contiguous().view(-1).numpy()
    codes = np.zeros(flat.shape, np.int8)
    for boundary in between.numpy():
        codes += flat > boundary
    return torch.from_numpy(codes).int().view(values.shape)


def _cells(values: Tensor, between: Tensor) -> Tensor:
    """Where on the line from the first boundary to the last each value lies, as one of ``_CELLS`` steps."""
    places = (values - between[0]).mul_((_CELLS - 1) / (between[-1] - between[0]))
    return places.clamp_(0, _CELLS - 1).nan_to_num_().int()


def _sorted(values: Tensor) -> _Array:
    flat = values.detach().flatten().cpu()
    array: _Array = (flat if flat.dtype == torch.float64 else flat.float()).numpy()
    return np.sort(array)  # many times as fast as torch.sort


def _lloyd(ordered: _Array, centres: _Array) -> _Array:
    """Lloyd's algorithm from ``centres``, until no value changes its cluster and no cluster is better placed elsewhere.

    Cluster k is ``ordered[ends[k]:ends[k + 1]]``.
    """
    sums = np.concatenate([[0.0], np.cumsum(ordered, dtype=np.float64)])
    clusters, ends = len(centres), _ends(ordered, centres)
    for _ in range(_PATIENCE):
        nonempty = np.unique(ends)
        centres = np.diff(sums[nonempty]) / np.diff(nonempty)
        before, ends = ends, _ends(ordered, centres)
        if len(centres) < clusters or np.array_equal(before, ends):
            ends = _move(ordered, sums, nonempty, clusters)
            if np.array_equal(before, ends):
                break
    return centres


def _ends(ordered: _Array, centres: _Array) -> _Indices:
    between = ((centres[1:] + centres[:-1]) / 2).astype(ordered.dtype)
    return np.concatenate([[0], ordered.searchsorted(between, side="right"), [len(ordered)]])


def _move(ordered: _Array, sums: _Array, ends: _Indices, clusters: int) -> _Indices:
    """Merge the two neighbours that cost least, or none if a cluster is missing, and cut where that gains more."""
    if clusters == 1:
        return ends
    merged, cost = ends, 0.0
    if len(ends) > clusters:
        costs = _ward(sums, ends[:-2], ends[1:-1], ends[2:])
        k = int(costs.argmin())
        merged, cost = np.delete(ends, k + 1), float(costs[k])
    first, last = merged[:-1], merged[1:]
    means = ((sums[last] - sums[first]) / (last - first)).astype(ordered.dtype)
    cuts = ordered.searchsorted(means, side="right").clip(first + 1, np.maximum(first + 1, last - 1))
    gains = np.where(last - first > 1, _ward(sums, first, cuts, np.maximum(last, cuts + 1)), 0.0)
    k = int(gains.argmax())
    return np.insert(merged, k + 1, cuts[k]) if gains[k] > cost * (1 + 1e-6) else ends


def _ward(sums: _Array, first: _Indices, cut: _Indices, last: _Indices) -> _Array:
    """What it costs to merge ``ordered[first:cut]`` and ``ordered[cut:last]``: ``(m n / (m + n)) (mean - mean)^2``."""
    m, n = cut - first, last - cut
    means = (sums[cut] - sums[first]) / m - (sums[np.minimum(last, len(sums) - 1)] - sums[cut]) / n
    cost: _Array = m * n / (m + n) * means**2
    return cost
