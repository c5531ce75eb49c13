"""The choice of an option for each layer, against the best of all combinations."""

from itertools import product
from random import Random

import pytest

from lightning_compress.costs.allocation import Option, choose


def layers(seed, number=4, each=5):
    random = Random(seed)
    return {
        f"layer{i}": [Option(k, random.uniform(0, 10), random.uniform(1, 20)) for k in range(each)]
        for i in range(number)
    }


def best(options, budget):
    """The least cost of all combinations that fit."""
    combinations = product(*options.values())
    return min(sum(o.cost for o in chosen) for chosen in combinations if sum(o.size for o in chosen) <= budget)


def smallest(options):
    return sum(min(option.size for option in each) for each in options.values())


@pytest.mark.parametrize("seed", range(20))
def test_the_choice_fits_and_is_the_best_for_the_bytes_that_it_takes_but_for_one_step(seed):
    options = layers(seed)
    budget = smallest(options) + 5 * (1 + seed % 6)
    chosen = choose(options, budget)
    taken = sum(option.size for option in chosen.values())
    assert taken <= budget
    cost = sum(option.cost for option in chosen.values())
    # Steps of hulls are optimal at the budgets where they end: the loss is at most one step of one layer.
    largest = max(max(o.cost for o in each) - min(o.cost for o in each) for each in options.values())
    assert best(options, budget) <= cost + 1e-9 <= best(options, budget) + largest


@pytest.mark.parametrize("seed", range(10))
def test_it_is_optimal_at_the_bytes_that_the_steps_take(seed):
    """A choice along the hulls is the best of all combinations that take no more bytes than it does."""
    options = layers(seed, number=1, each=6)
    budget = smallest(options) + 8
    chosen = choose(options, budget)
    taken = sum(option.size for option in chosen.values())
    assert sum(option.cost for option in chosen.values()) == pytest.approx(best(options, taken))


def test_costs_that_are_equal_for_each_byte_share_it_evenly():
    def option(k):
        return Option(k, 2.0 ** -(2 * k), k)

    chosen = choose({"a": [option(k) for k in range(8)], "b": [option(k) for k in range(8)]}, 10)
    assert [one.choice for one in chosen.values()] == [5, 5]


def test_a_layer_of_ten_times_the_cost_gets_more():
    few, many = Option(4, 1.0, 10.0), Option(16, 0.5, 20.0)
    dear = [Option(4, 10.0, 10.0), Option(16, 5.0, 20.0)]
    chosen = choose({"cheap": [few, many], "dear": dear}, 30.0)
    assert {name: option.choice for name, option in chosen.items()} == {"cheap": 4, "dear": 16}


def test_the_smallest_of_each_if_even_they_exceed_the_budget():
    options = layers(0)
    chosen = choose(options, 1.0)
    assert all(chosen[name].size == min(o.size for o in each) for name, each in options.items())


def test_an_option_that_costs_more_and_takes_more_is_never_chosen():
    options = [Option(4, 1.0, 10.0), Option(8, 2.0, 15.0), Option(16, 0.5, 20.0)]
    assert [choose({"a": options}, budget)["a"].choice for budget in (10, 16, 20)] == [4, 4, 16]
