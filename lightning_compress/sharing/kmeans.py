"""K-means of scalars: few values that represent many weights.

On a line, the cluster of a center is an interval. See :mod:`~.lloyd`.

Paper: Han, Mao and Dally, "Deep Compression", https://arxiv.org/abs/1510.00149 (2016).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from lightning_compress.arguments import check_tensor_answer
from lightning_compress.sharing.initial_centers import Init, linear
from lightning_compress.sharing.lloyd import Floats, Integers, distinct, lloyd

__all__ = ["assign", "fit", "fit_rows"]

_CELLS = 1 << 12  # cells of the lookup table in assign
_COMPARED = 16  # up to this number of boundaries, comparing with each in turn is fastest


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
    ordered = _sorted(values.flatten()[None], overwrite)
    (centers,) = _fitted(ordered, np.array([[ordered.shape[1]]]), np.array([clusters]), init)
    return torch.from_numpy(centers).to(values.device, values.dtype)


def fit_rows(values: Tensor, clusters: Tensor, init: Init = linear) -> Tensor:
    """Find centers for the values of each row, as :func:`fit` does for one; values that are zero do not count.

    Args:
        values: ``(R, N)``.
        clusters: number of centers of each row, ``(R,)``, 1 or more.
        init: initial centers.

    Returns:
        ``(R, K)``: the centers of each row in ascending order, and infinity behind them.

    Raises:
        TypeError: ``init`` returns no tensor.
        ValueError: a value is not finite, or ``init`` does not return finite centers in ascending order.

    >>> fit_rows(torch.tensor([[5.0, 1.0, 3.0, 6.0], [0.0, 4.0, 4.0, 0.0]]), torch.tensor([2, 2])).tolist()
    [[2.0, 5.5], [4.0, inf]]
    """
    zeros = values == 0
    ordered = _sorted(values.masked_fill(zeros, math.inf), overwrite=True)
    lengths = (values.shape[1] - zeros.sum(1, keepdim=True)).cpu().numpy()
    found = _fitted(ordered, lengths, clusters.cpu().numpy(), init)
    table = np.full((len(found), max(1, *map(len, found))), np.inf, ordered.dtype)
    for row, centers in zip(table, found, strict=True):
        row[: len(centers)] = centers
    return torch.from_numpy(table).to(values.device, values.dtype)


def _fitted(ordered: Floats, lengths: Integers, clusters: Integers, init: Init) -> list[Floats]:
    """The centers of each sorted row ``(R, N)``; ``lengths (R, 1)``, ``clusters (R,)``."""
    if ordered.shape[1]:
        ends = ordered[np.arange(len(ordered))[:, None], np.concatenate([0 * lengths, np.maximum(lengths - 1, 0)], 1)]
        if not np.isfinite(ends[lengths[:, 0] > 0]).all():  # NaN sorts last
            raise ValueError("need finite values to cluster, got NaN or infinity: the training has diverged")
    found = distinct(ordered, lengths, clusters)
    if len(found) < len(ordered):
        many = np.array([row not in found for row in range(len(ordered))])
        starts = np.full((np.count_nonzero(many), int(clusters[many].max())), np.inf)
        for start, row in zip(starts, np.flatnonzero(many), strict=True):
            values = torch.from_numpy(ordered[row, : lengths[row, 0]])
            start[: clusters[row]] = _start(init, values, int(clusters[row]))
        some = slice(None) if many.all() else many  # a slice does not copy
        moved = lloyd(ordered[some], lengths[some], starts).astype(ordered.dtype)
        found |= {
            int(row): np.unique(each[np.isfinite(each)]) for row, each in zip(np.flatnonzero(many), moved, strict=True)
        }
    return [found[row] for row in range(len(ordered))]


def assign(values: Tensor, codebook: Tensor) -> Tensor:
    """Find the index of the nearest center, the smaller center if two are equally near.

    Args:
        values: of any shape.
        codebook: centers in ascending order, ``(K,)``; or ``(C, K)``, those of ``values[c]`` in row ``c``, with
            infinity in the place of centers that a row lacks.

    Returns:
        int32 tensor of the shape of ``values``.

    >>> assign(torch.tensor([[5.0, 1.0], [0.0, 6.0]]), torch.tensor([0.5, 5.5])).tolist()
    [[1, 0], [0, 1]]
    """
    wide = torch.promote_types(values.dtype, torch.float32)  # the mean of two bfloat16 may not be a bfloat16
    values, centers = values.to(wide), codebook.to(wide)
    between = centers[..., :-1].lerp(centers[..., 1:], 0.5)
    if codebook.ndim == 2 and len(codebook) > 1:
        between = between.masked_fill(centers[..., 1:].isposinf(), math.inf)  # not NaN, between two infinities
        return torch.searchsorted(between, values.flatten(1), out_int32=True).view(values.shape)
    between = between.flatten()
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


def _start(init: Init, ordered: Tensor, clusters: int) -> Floats:
    """The initial centers, of a function that a user may have written."""
    centers = init(ordered, clusters)
    check_tensor_answer("init(values, clusters)", init, centers, (clusters,))
    start: Floats = centers.detach().double().numpy()
    if not (np.isfinite(start).all() and (start[1:] >= start[:-1]).all()):
        raise ValueError("need init(values, clusters) to return finite centers in ascending order, got others")
    return start


def _sorted(rows: Tensor, overwrite: bool) -> Floats:
    flat = rows.detach().cpu()
    array: Floats = (flat if flat.dtype == torch.float64 else flat.float()).numpy()
    if not overwrite and array.ctypes.data == rows.data_ptr():
        array = array.copy()
    array.sort(axis=1)  # many times as fast as torch.sort
    return array
