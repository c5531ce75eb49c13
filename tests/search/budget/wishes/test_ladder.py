"""The sizes that a search tries."""

import math

import pytest

from lightning_compress.search.budget.wishes.ladder import Ladder


def search(smallest_good, size=1000.0, least=1.0, step=0.5, tries=100):
    """All sizes that are tried where a model is good down to a certain size."""
    ladder, tried = Ladder(size, least, step), []
    while not ladder.ended and len(tried) < tries:
        tried.append(ladder.size)
        ladder.judge(ladder.size >= smallest_good)
    return ladder, tried


@pytest.mark.parametrize("smallest_good", [3.0, 47.0, 333.0, 999.0, 1000.0, 20_000.0])
def test_it_ends_within_a_tenth_of_the_smallest_good_size(smallest_good):
    ladder, tried = search(smallest_good)
    assert smallest_good <= ladder.good <= smallest_good / 0.9
    assert len(tried) < 20


def test_it_stops_at_the_least_size():
    ladder, tried = search(0.0, size=100.0, least=20.0)
    assert ladder.good == 20
    assert tried == [100, 50, 25, 20]


def test_larger_sizes_come_until_one_is_good():
    ladder = Ladder(100.0, 1.0, 0.5)
    for expected in (200.0, 400.0):
        ladder.judge(False)
        assert ladder.size == expected
    ladder.judge(True)
    assert (ladder.good, ladder.bad) == (400, 200)
    assert ladder.size == pytest.approx(math.sqrt(400 * 200))


def test_no_size_is_larger_than_the_dense_model():
    """It may be bad for a while, before it is trained; then the search begins anew from it."""
    ladder, tried = Ladder(125.0, 1.0, 0.6, most=1000.0), []
    for _ in range(8):
        tried.append(ladder.size)
        ladder.judge(False)
    assert tried == pytest.approx([125, 208.3, 347.2, 578.7, 964.5, 1000, 1000, 1000], abs=0.1)
    assert not ladder.ended
    ladder.judge(True)
    assert (ladder.good, ladder.bad, ladder.size) == (1000, 0, 600)
    ladder.judge(False)
    assert ladder.size == pytest.approx(math.sqrt(600 * 1000))


def test_no_size_is_tried_twice():
    for smallest_good in (3.0, 47.0, 333.0):
        _, tried = search(smallest_good)
        assert len(set(tried)) == len(tried)
