"""K-means of scalars: few values that represent many weights.

On a line, the cluster of a center is an interval. With the values sorted and their cumulative sums known, a step of
Lloyd's algorithm is a few binary searches, whatever the number of values; no matrix of distances is needed::

    boundary_k = (c_k + c_{k+1}) / 2        end of the interval of center k
    c_k        = mean of the values between boundary_{k-1} and boundary_k

Papers: Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28 (1982); Han, Mao and
Dally, "Deep Compression", https://arxiv.org/abs/1510.00149 (2016).
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_compress.arguments import check_tensor_answer
from lightning_compress.sharing.initial_centers import Init, linear

__all__ = ["assign", "fit"]

_Array: TypeAlias = NDArray[np.floating]
_Indices: TypeAlias = NDArray[np.integer]

_CELLS = 1 << 12  # cells of the lookup table in assign
_COMPARED = 16  # up to this number of boundaries, comparing with each in turn is fastest
_RUN = 64  # values that are added anew for each sum of a large array
_SMALL = 1 << 16  # number of values up to which all sums are kept
_PATIENCE = 1000  # most steps of Lloyd's algorithm; with hundreds of clusters it converges slowly


def fit(values: Tensor, clusters: int, init: Init = linear, *, overwrite: bool = False) -> Tensor:
    """Find centers that minimize the sum of squared distances of the values to their nearest center.

    The result depends only on the values, not on their order, their device or the number of threads.

    Args:
        values: of any shape and floating dtype.
        clusters: number of centers.
        init: initial centers.
        overwrite: whether the values may be sorted where they are, which spares the memory of a copy.

    Returns:
        the centers in ascending order, of the dtype and on the device of ``values``: ``clusters`` of them, none without
        values, or all distinct values if there are fewer.

    Raises:
        TypeError: ``init`` returns no tensor.
        ValueError: ``clusters`` is below 1, a value is not finite, or ``init`` does not return ``clusters`` finite
            centers in ascending order.

    >>> fit(torch.tensor([5.0, 1.0, 0.0, 6.0]), 2).tolist()
    [0.5, 5.5]
    """
    if clusters < 1:
        raise ValueError(f"need clusters >= 1, got clusters={clusters}")
    ordered = _sorted(values, overwrite)
    if len(ordered) and not np.isfinite(ordered[[0, -1]]).all():  # NaN sorts last
        raise ValueError("need finite values to cluster, got NaN or infinity: the training has diverged")
    rises = ordered[1:] != ordered[:-1]
    if np.count_nonzero(rises) < clusters:
        centers = ordered[np.flatnonzero(np.concatenate([np.ones(min(1, len(ordered)), bool), rises]))]
    else:
        start = _start(init, torch.from_numpy(ordered), clusters)
        centers = np.unique(_lloyd(ordered, start).astype(ordered.dtype))
    return torch.from_numpy(centers).to(values.device, values.dtype)


def assign(values: Tensor, codebook: Tensor) -> Tensor:
    """Find the index of the nearest center, the smaller center if two are equally near.

    Args:
        values: of any shape.
        codebook: centers in ascending order, ``(K,)``.

    Returns:
        int32 tensor of the shape of ``values``.

    >>> assign(torch.tensor([[5.0, 1.0], [0.0, 6.0]]), torch.tensor([0.5, 5.5])).tolist()
    [[1, 0], [0, 1]]
    """
    wide = torch.promote_types(values.dtype, torch.float32)  # the mean of two bfloat16 may not be a bfloat16
    between = codebook[:-1].to(wide).lerp(codebook[1:].to(wide), 0.5)
    values = values.to(wide)
    if len(between) < 2 or values.numel() < _CELLS or not values.is_cpu:
        return torch.bucketize(values, between, out_int32=True)
    if len(between) <= _COMPARED:
        return _count_below(values, between)
    # Binary search is slow, as a processor mispredicts its jumps. Divide the line into cells so small that
    # as a rule each contains at most one boundary: the cell of a value then names the boundary to compare with.
    places = _cells(between, between)
    if (places[1:] == places[:-1]).any():
        return torch.bucketize(values, between, out_int32=True)
    passed = torch.bucketize(torch.arange(_CELLS, dtype=torch.int32), places, out_int32=True)
    codes = passed.index_select(0, _cells(values.flatten(), between))
    ahead = torch.cat([between, between.new_full((1,), math.inf)]).index_select(0, codes)
    return codes.add_(values.flatten() > ahead).view(values.shape)


def _count_below(values: Tensor, between: Tensor) -> Tensor:
    """Count the boundaries below each value; comparisons in NumPy are as fast as memory."""
    flat = values.detach().contiguous().view(-1).numpy()
    codes = np.zeros(flat.shape, np.int8)
    for boundary in between.numpy():
        codes += flat > boundary
    return torch.from_numpy(codes).int().view(values.shape)


def _cells(values: Tensor, between: Tensor) -> Tensor:
    """Cell of each value, one of ``_CELLS`` equal intervals from the first boundary to the last."""
    places = (values - between[0]).mul_((_CELLS - 1) / (between[-1] - between[0]))
    return places.clamp_(0, _CELLS - 1).nan_to_num_().int()


def _start(init: Init, ordered: Tensor, clusters: int) -> _Array:
    """The initial centers, of a function that a user may have written."""
    centers = init(ordered, clusters)
    check_tensor_answer("init(values, clusters)", init, centers, (clusters,))
    start: _Array = centers.detach().double().numpy()
    if not (np.isfinite(start).all() and (start[1:] >= start[:-1]).all()):
        raise ValueError("need init(values, clusters) to return finite centers in ascending order, got others")
    return start


def _sorted(values: Tensor, overwrite: bool) -> _Array:
    flat = values.detach().flatten().cpu()
    array: _Array = (flat if flat.dtype == torch.float64 else flat.float()).numpy()
    if not overwrite and array.ctypes.data == values.data_ptr():
        array = array.copy()
    array.sort()  # many times as fast as torch.sort
    return array


class _Sums:
    """Sums of the first values of an array, ``sums[n] = x_1 + ... + x_n``; of a large one, one in ``_RUN`` is kept.

    Args:
        values: ``(N,)``.
    """

    def __init__(self, values: _Array) -> None:
        self._run = 1 if len(values) <= _SMALL else _RUN
        whole = len(values) // self._run * self._run
        runs = values[:whole].reshape(-1, self._run).sum(axis=1, dtype=np.float64)
        self._kept = np.concatenate([[0.0], np.cumsum(runs)])
        self._values = values

    def __getitem__(self, counts: _Indices) -> _Array:
        """The sums of these numbers of values; of all values where there are not as many."""
        counts = np.minimum(counts, len(self._values))
        if self._run == 1:
            return self._kept[counts]
        first = counts // self._run * self._run
        places = first[:, None] + np.arange(self._run)
        values = self._values[np.minimum(places, len(self._values) - 1)].astype(np.float64)
        sums: _Array = self._kept[counts // self._run] + np.where(places < counts[:, None], values, 0.0).sum(axis=1)
        return sums


def _lloyd(ordered: _Array, centers: _Array) -> _Array:
    """Run Lloyd's algorithm until no value changes its cluster and moving a cluster elsewhere does not help.

    Cluster k is ``ordered[ends[k]:ends[k + 1]]``.
    """
    sums = _Sums(ordered)
    clusters, ends = len(centers), _ends(ordered, centers)
    for _ in range(_PATIENCE):
        nonempty = np.unique(ends)
        centers = np.diff(sums[nonempty]) / np.diff(nonempty)
        before, ends = ends, _ends(ordered, centers)
        if len(centers) < clusters or np.array_equal(before, ends):
            ends = _merge_and_split(ordered, sums, nonempty, clusters)
            if np.array_equal(before, ends):
                break
    return centers


def _ends(ordered: _Array, centers: _Array) -> _Indices:
    between = ((centers[1:] + centers[:-1]) / 2).astype(ordered.dtype)
    return np.concatenate([[0], ordered.searchsorted(between, side="right"), [len(ordered)]])


def _merge_and_split(ordered: _Array, sums: _Sums, ends: _Indices, clusters: int) -> _Indices:
    """Merge the two cheapest neighbors, unless a cluster is missing, and split another cluster if that gains more."""
    if clusters == 1:
        return ends
    merged, cost = ends, 0.0
    if len(ends) > clusters:
        costs = _ward(sums, ends[:-2], ends[1:-1], ends[2:])
        k = int(costs.argmin())
        merged, cost = np.delete(ends, k + 1), float(costs[k])
    first, last = merged[:-1], merged[1:]
    means = ((sums[last] - sums[first]) / (last - first)).astype(ordered.dtype)
    splits = ordered.searchsorted(means, side="right").clip(first + 1, np.maximum(first + 1, last - 1))
    gains = np.where(last - first > 1, _ward(sums, first, splits, np.maximum(last, splits + 1)), 0.0)
    k = int(gains.argmax())
    return np.insert(merged, k + 1, splits[k]) if gains[k] > cost * (1 + 1e-6) else ends


def _ward(sums: _Sums, first: _Indices, split: _Indices, last: _Indices) -> _Array:
    """Cost of merging ``ordered[first:split]`` with ``ordered[split:last]``: ``(m n / (m + n)) (mean - mean)^2``."""
    m, n = split - first, last - split
    means = (sums[split] - sums[first]) / m - (sums[last] - sums[split]) / n
    cost: _Array = m * n / (m + n) * means**2
    return cost
