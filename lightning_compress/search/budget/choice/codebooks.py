"""Codebooks that are nearly those of k-means, in a small part of its time: an estimate needs many of them.

The density of centers that costs least is proportional to the cube root of the density of the values. Between two
neighbors of the sorted values it is the gap to the power 2/3, up to a factor; some steps of Lloyd's algorithm follow.

Paper: Panter and Dite, "Quantization distortion in pulse-count modulation with nonuniform spacing of levels",
Proceedings of the IRE 39 (1951).
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["codebook"]

_Array: TypeAlias = NDArray[np.floating[Any]]

_KNOTS = 1 << 12  # values that the density is read from
_STEPS = 3  # of Lloyd's algorithm


def codebook(values: Tensor, number: int, *, pruned: bool) -> Tensor:
    """About ``number`` centers, in ascending order, that lie close to the values.

    Args:
        values: finite numbers, ``(n,)``, float32 on the CPU.
        number: of centers, at least 1.
        pruned: whether the values around zero have been removed. No center then stands for values of both signs.

    Returns:
        at most ``number`` centers, float32; all distinct values if there are not more.

    >>> codebook(torch.cat([torch.full((9,), -1.0), torch.full((9,), 2.0)]), 2, pruned=True).tolist()
    [-1.0, 2.0]
    """
    ordered = np.sort(values.numpy())
    distinct = np.flatnonzero(np.diff(ordered, prepend=-np.inf))
    if len(distinct) <= number:
        return torch.from_numpy(ordered[distinct])
    sums = np.concatenate([[0.0], np.cumsum(ordered, dtype=np.float64)])
    between = _boundaries(ordered, number, pruned)
    for _ in range(_STEPS):
        ends = np.unique(np.concatenate([[0], ordered.searchsorted(between, side="right"), [len(ordered)]]))
        centers = np.diff(sums[ends]) / np.diff(ends)
        between = (centers[1:] + centers[:-1]) / 2
    return torch.from_numpy(centers.astype(np.float32))


def _boundaries(ordered: _Array, number: int, pruned: bool) -> _Array:
    """Values between the clusters: each of these holds an equal share of the centers' density."""
    knots = ordered[np.linspace(0, len(ordered) - 1, min(len(ordered), _KNOTS)).astype(int)].astype(np.float64)
    crossing = (knots[:-1] < 0) & (knots[1:] > 0)
    gaps = np.where(crossing & pruned, 0.0, np.diff(knots))
    density = np.concatenate([[0.0], np.cumsum(gaps ** (2 / 3))])
    total = density[-1]
    if not (pruned and crossing.any() and number > 1 and total > 0):
        even: _Array = np.interp(np.arange(1, number) / number * total, density, knots)
        return even
    middle = density[int(crossing.argmax())]
    below = min(max(round(number * middle / total), 1), number - 1)
    left = np.interp(np.arange(1, below) / below * middle, density, knots)
    above = number - below
    right = np.interp(middle + np.arange(1, above) / above * (total - middle), density, knots)
    return np.concatenate([left, [0.0], right])
