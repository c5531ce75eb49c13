"""Lloyd's algorithm on sorted values, of many rows at once.

With the values of a row sorted and their cumulative sums known, a step is a few binary searches, whatever the number of
values; no matrix of distances is needed::

    boundary_k = (c_k + c_{k+1}) / 2        end of the interval of center k
    c_k        = mean of the values between boundary_{k-1} and boundary_k

Rows may differ in their numbers of values and of clusters: infinity stands behind the values and the centers of a row.

Paper: Lloyd, "Least squares quantization in PCM", IEEE Transactions on Information Theory 28 (1982).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Floats", "Integers", "distinct", "lloyd"]

Floats: TypeAlias = NDArray[np.floating]
Integers: TypeAlias = NDArray[np.integer]

_RUN = 64  # values that are added anew for each sum of a long row
_SHORT = 1 << 16  # number of values of a row up to which all sums are kept
_PATIENCE = 1000  # most steps; with hundreds of clusters they converge slowly


def _take(rows: NDArray[Any], places: Integers) -> NDArray[Any]:
    """``rows[r, places[r]]`` for each row ``r``, several times as fast."""
    flat = places if len(rows) == 1 else places + np.arange(0, rows.size, rows.shape[1])[:, None]
    return rows.reshape(-1).take(flat)


class _Rows:
    """Sorted rows, and the sums of their first values: ``x_1 + ... + x_n``; of a long row, one in ``_RUN`` is kept.

    Args:
        ordered: ``(R, N)``, ascending, with infinity behind the values of a row.
        lengths: number of values of each row, ``(R, 1)``.
    """

    def __init__(self, ordered: Floats, lengths: Integers) -> None:
        self.ordered, self.lengths = ordered, lengths
        self._run = 1 if ordered.shape[1] <= _SHORT else _RUN
        whole = ordered.shape[1] // self._run * self._run
        values = ordered[:, :whole]
        if (lengths < whole).any():
            values = np.where(np.isposinf(values), 0, values)
        runs = values if self._run == 1 else values.reshape(len(ordered), -1, self._run).sum(axis=2, dtype=np.float64)
        self._kept = np.zeros((len(ordered), runs.shape[1] + 1))
        np.cumsum(runs, axis=1, out=self._kept[:, 1:])

    def some(self, rows: NDArray[np.bool_]) -> _Rows:
        """Some of the rows."""
        if rows.all():
            return self  # without a copy
        some = object.__new__(_Rows)
        some.ordered, some.lengths, some._run = self.ordered[rows], self.lengths[rows], self._run
        some._kept = self._kept[rows]
        return some

    def sums(self, counts: Integers) -> Floats:
        """The sums of these numbers of values, ``(R, K)``; of all values of a row where it has not as many."""
        counts = np.minimum(counts, self.lengths)
        if self._run == 1:
            return _take(self._kept, counts)
        first = counts // self._run * self._run
        places = (first[..., None] + np.arange(self._run)).reshape(len(counts), -1)
        values = _take(self.ordered, np.minimum(places, self.ordered.shape[1] - 1)).astype(np.float64)
        wanted = places < np.repeat(counts, self._run, axis=1)
        added: Floats = np.where(wanted, values, 0.0).reshape(*counts.shape, self._run).sum(axis=2)
        return _take(self._kept, counts // self._run) + added

    def upto(self, bounds: Floats) -> Integers:
        """Number of the values of each row up to its bounds, ``(R, K)``."""
        if len(bounds) == 1:
            found = self.ordered[0].searchsorted(bounds[0], side="right")[None]
        else:
            found = torch.searchsorted(torch.from_numpy(self.ordered), torch.from_numpy(bounds), right=True).numpy()
        counts: Integers = np.minimum(found, self.lengths)
        return counts


def distinct(ordered: Floats, lengths: Integers, most: Integers) -> dict[int, Floats]:
    """Row -> its distinct values, of each sorted row ``(R, N)`` that has at most ``most`` of them, ``(R,)``."""
    new = np.ones(ordered.shape, bool)
    np.not_equal(ordered[:, 1:], ordered[:, :-1], out=new[:, 1:])
    if (lengths < ordered.shape[1]).any():
        new &= np.arange(ordered.shape[1]) < lengths
    few = np.flatnonzero(np.count_nonzero(new, axis=1) <= most)
    return {int(row): ordered[row][new[row]] for row in few}


def lloyd(ordered: Floats, lengths: Integers, centers: Floats) -> Floats:
    """Move centers until no value changes its cluster and moving a cluster elsewhere does not help.

    Cluster ``k`` of row ``r`` is ``ordered[r, ends[r, k] : ends[r, k + 1]]``.

    Args:
        ordered: ``(R, N)``, ascending, with infinity behind the values of a row.
        lengths: number of values of each row, ``(R, 1)``.
        centers: ``(R, K)``, ascending, with infinity behind the centers of a row.

    Returns:
        centers ``(R, K)`` in float64, with infinity behind those of a row.
    """
    found = np.full(centers.shape, np.inf)
    wanted, left, rows = np.isfinite(centers).sum(1, keepdims=True), np.arange(len(ordered)), _Rows(ordered, lengths)
    ends = _ends(rows, centers)
    for _ in range(_PATIENCE):
        nonempty = _without_empty(ends, rows.lengths)
        centers = _means(rows, nonempty)
        found[left] = centers
        before, ends = ends, _ends(rows, centers)
        stuck = (np.isfinite(centers).sum(1, keepdims=True) < wanted)[:, 0] | (before == ends).all(1)
        if not stuck.any():
            continue
        ends[stuck] = _merge_and_split(rows.some(stuck), nonempty[stuck], wanted[stuck])
        moving = ~(stuck & (before == ends).all(1))
        if not moving.all():
            left, ends, wanted, rows = left[moving], ends[moving], wanted[moving], rows.some(moving)
        if not len(left):
            break
    return found


def _ends(rows: _Rows, centers: Floats) -> Integers:
    between = ((centers[:, 1:] + centers[:, :-1]) / 2).astype(rows.ordered.dtype)
    return np.concatenate([np.zeros_like(rows.lengths), rows.upto(between), rows.lengths], axis=1)


def _without_empty(ends: Integers, lengths: Integers) -> Integers:
    """The ends of the clusters that have values; the length of a row stands behind them."""
    new = ends[:, 1:] > ends[:, :-1]
    if new.all():
        return ends
    kept = np.repeat(lengths, ends.shape[1], axis=1)
    kept[:, 0] = 0
    row, column = np.nonzero(new)
    kept[row, np.cumsum(new, axis=1)[row, column]] = ends[row, column + 1]
    return kept


def _means(rows: _Rows, ends: Integers) -> Floats:
    """The mean of each cluster; infinity where it has no values."""
    sizes = np.diff(ends, axis=1)
    means: Floats = np.where(sizes > 0, np.diff(rows.sums(ends), axis=1) / np.maximum(sizes, 1), np.inf)
    return means


def _merge_and_split(rows: _Rows, ends: Integers, wanted: Integers) -> Integers:
    """Merge the two cheapest neighbors, unless a cluster is missing, and split another cluster if that gains more."""
    sizes, row = np.diff(ends, axis=1), np.arange(len(ends))
    full = (sizes > 0).sum(1, keepdims=True) >= wanted
    merged, cost = ends, np.zeros(len(ends))
    if full.any() and ends.shape[1] > 2:
        costs = np.where(sizes[:, 1:] > 0, _ward(rows, ends[:, :-2], ends[:, 1:-1], ends[:, 2:]), np.inf)
        cheapest = costs.argmin(1)
        cost = np.where(full[:, 0], costs[row, cheapest], 0.0)
        places = np.arange(ends.shape[1])
        places = np.minimum(places + (full & (places > cheapest[:, None])), len(places) - 1)
        merged = _take(ends, places)
    first, last = merged[:, :-1], merged[:, 1:]
    means = _means(rows, merged).astype(rows.ordered.dtype)
    splits = rows.upto(means).clip(first + 1, np.maximum(first + 1, last - 1))
    gains = np.where(last - first > 1, _ward(rows, first, splits, np.maximum(last, splits + 1)), 0.0)
    best = gains.argmax(1)
    better = (gains[row, best] > cost * (1 + 1e-6)) & (wanted[:, 0] > 1)
    places = np.arange(ends.shape[1])
    split = _take(merged, places - (places > best[:, None]))
    split[row, best + 1] = splits[row, best]
    return np.where(better[:, None], split, ends)


def _ward(rows: _Rows, first: Integers, split: Integers, last: Integers) -> Floats:
    """Cost of merging ``ordered[first:split]`` with ``ordered[split:last]``: ``(m n / (m + n)) (mean - mean)^2``."""
    m, n = split - first, last - split
    with np.errstate(divide="ignore", invalid="ignore"):
        means = (rows.sums(split) - rows.sums(first)) / m - (rows.sums(last) - rows.sums(split)) / n
        cost: Floats = m * n / (m + n) * means**2
    return cost
