import math
import random

import pytest

from lightning_compress.search.comparison.fronts import pareto_front


def dominated(point, points):
    """By the definition, pair by pair."""
    return any(all(a <= b for a, b in zip(other, point, strict=True)) and other != point for other in points)


@pytest.mark.parametrize("seed", range(5))
def test_the_front_is_what_no_point_dominates(seed):
    draw = random.Random(seed)
    points = [(draw.randrange(6), draw.randrange(6)) for _ in range(20)]
    assert pareto_front(points) == [not dominated(point, points) for point in points]


def test_a_point_without_a_number_is_not_on_the_front():
    assert pareto_front([(math.nan, 0.0), (1.0, math.nan), (5.0, 5.0)]) == [False, False, True]


def test_no_points():
    assert pareto_front([]) == []
