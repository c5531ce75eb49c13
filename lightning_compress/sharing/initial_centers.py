"""Initial centers: starting points of k-means.

All share one signature, ``Init = Callable[[Tensor, int], Tensor]``: sorted values, number of clusters -> centers in
ascending order. Any function of this signature can be passed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["Init", "density", "linear", "plus_plus"]

Init: TypeAlias = Callable[[Tensor, int], Tensor]
"""Values in ascending order ``(N,)``, number of clusters K -> centers in ascending order ``(K,)``."""

_SAMPLE = 1 << 16


def linear(ordered: Tensor, clusters: int) -> Tensor:
    """Centers at equal distances from the smallest to the largest value, so that rare large weights keep a center.

    Args:
        ordered: values in ascending order, ``(N,)``.
        clusters: number of centers.

    >>> linear(torch.tensor([0.0, 0.1, 0.2, 4.0]), 3).tolist()
    [0.0, 2.0, 4.0]
    """
    return torch.linspace(float(ordered[0]), float(ordered[-1]), clusters, dtype=ordered.dtype)


def density(ordered: Tensor, clusters: int) -> Tensor:
    """Centers at quantiles, so that every cluster starts with the same number of values.

    Args:
        ordered: values in ascending order, ``(N,)``.
        clusters: number of centers.

    >>> density(torch.tensor([0.0, 0.1, 0.2, 4.0]), 2).tolist()
    [0.10000000149011612, 4.0]
    """
    return ordered[(torch.arange(clusters) + 0.5).mul(len(ordered) / clusters).long()]


def plus_plus(ordered: Tensor, clusters: int, seed: int = 0) -> Tensor:
    """Random centers by k-means++: the probability of each is proportional to its squared distance from the others.

    Where there are more than 65,536 values, the centers are drawn from an evenly spaced subset. ``functools.partial``
    sets another seed.

    Paper: Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA (2007).

    Args:
        ordered: values in ascending order, ``(N,)``.
        clusters: number of centers.
        seed: seed of the random numbers.

    >>> plus_plus(torch.tensor([0.0, 0.0, 4.0, 4.0]), 2).tolist()
    [0.0, 4.0]
    """
    values = ordered[:: max(1, len(ordered) // _SAMPLE)].double()
    generator = torch.Generator().manual_seed(seed)
    distances = torch.ones_like(values)
    centers: list[Tensor] = []
    for _ in range(clusters):
        drawn = torch.multinomial(distances, 1, generator=generator)[0] if distances.any() else 0
        centers.append(values[drawn])
        squares = (values - values[drawn]).square()
        distances = torch.minimum(distances, squares) if len(centers) > 1 else squares
    return torch.stack(centers).sort().values.to(ordered.dtype)
