"""Pareto fronts: the points that no other point beats."""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["on_front", "pareto_front"]


def pareto_front(points: Sequence[tuple[float, float]]) -> list[bool]:
    """Whether each point is on the Pareto front: no other point is as good in both numbers, and better in one.

    Args:
        points: pairs of numbers that are better when they are smaller. Equal points are on the front together; a point
            with NaN is not on it.

    >>> pareto_front([(10, 0.2), (20, 0.1), (20, 0.3), (10, 0.2)])
    [True, True, False, True]
    """
    return [
        one == one and two == two and not any(x <= one and y <= two and (x < one or y < two) for x, y in points)
        for one, two in points
    ]


def on_front(pairs: Sequence[tuple[int | None, float | None]], mode: str) -> list[bool]:
    """Whether each model is on the Pareto front of its bytes and its metric; one that lacks either is not.

    Args:
        pairs: bytes and metric of each model.
        mode: whether the metric is better when it is smaller (``"min"``) or larger (``"max"``).

    >>> on_front([(10, 0.9), (20, 0.8), (5, None)], "max")
    [True, False, False]
    """
    sign = 1 if mode == "min" else -1
    return pareto_front(
        [(math.nan if size is None else size, math.nan if metric is None else sign * metric) for size, metric in pairs]
    )
