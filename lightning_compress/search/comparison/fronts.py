"""Pareto fronts: the points that no other point beats."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["pareto_front"]


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
