"""Allocation: the choice of one option for each layer, at the least cost under a budget.

An option of a layer has a cost ``c`` and a size ``b``, in bytes or bits. The options on the lower convex hull of the
points ``(b, c)`` of a layer count, and no others. From the smallest option of every layer, the steps along the hulls
are taken in the order of their gain for a byte, ``(c - c') / (b' - b)``, as long as they fit the budget.

Paper: Shoham and Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE Transactions on Acoustics,
Speech and Signal Processing 36 (1988).
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Option", "choose"]


@dataclass(frozen=True)
class Option:
    """One way to store a layer.

    Attributes:
        choice: what is chosen: a number of distinct values, or of bits.
        cost: estimated increase of the loss.
        size: what it takes of the budget.
    """

    choice: int
    cost: float
    size: float


def choose(options: Mapping[str, Sequence[Option]], budget: float) -> dict[str, Option]:
    """Choose an option for each layer: the least total cost that the steps along the hulls reach within ``budget``.

    Args:
        options: name of the layer -> its options, one or more.
        budget: size of all layers together.

    Returns:
        name -> option; the smallest option of every layer if even these exceed the budget.

    >>> few, many = Option(4, 3.0, 10.0), Option(16, 1.0, 20.0)
    >>> chosen = choose({"a": [few, many], "b": [few, Option(16, 2.5, 20.0)]}, budget=30.0)
    >>> {name: option.choice for name, option in chosen.items()}
    {'a': 16, 'b': 4}
    """
    hulls = {name: _hull(each) for name, each in options.items()}
    places = dict.fromkeys(hulls, 0)
    left = budget - sum(hull[0].size for hull in hulls.values())
    steps = [(-_gain(hull, 0), name) for name, hull in hulls.items() if len(hull) > 1]
    heapq.heapify(steps)
    while steps:
        _, name = heapq.heappop(steps)
        hull, place = hulls[name], places[name]
        extra = hull[place + 1].size - hull[place].size
        if extra > left:
            continue
        left -= extra
        places[name] = place + 1
        if place + 2 < len(hull):
            heapq.heappush(steps, (-_gain(hull, place + 1), name))
    return {name: hull[places[name]] for name, hull in hulls.items()}


def _gain(hull: Sequence[Option], place: int) -> float:
    """Cost that one more unit of size saves, on the step from an option to the next."""
    small, large = hull[place], hull[place + 1]
    return (small.cost - large.cost) / (large.size - small.size)


def _hull(options: Sequence[Option]) -> list[Option]:
    """The options on the lower convex hull, from the smallest to the largest; each costs less than those before."""
    hull: list[Option] = []
    for option in sorted(options, key=lambda one: (one.size, one.cost)):
        if hull and option.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _gain([hull[-2], hull[-1]], 0) <= _gain([hull[-2], option], 0):
            hull.pop()
        hull.append(option)
    return hull
