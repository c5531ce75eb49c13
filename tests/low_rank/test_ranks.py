"""Against a search of all choices of ranks on small cases."""

import itertools

import numpy as np
import pytest

from lightning_compress.low_rank.ranks import Size, ranks_by_energy, ranks_by_parameters

SIZES = {"a": Size(6, 18), "b": Size(8, 8), "c": Size(5, 40)}


def spectra(seed, sizes=SIZES):
    generator = np.random.default_rng(seed)
    found = {}
    for name, size in sizes.items():
        values = np.sort(generator.exponential(size=size.full) ** 3)[::-1]
        found[name] = (values / values.sum()).tolist()
    return found


def parameters(ranks, sizes=SIZES):
    return sum(size.split(ranks[name]) if name in ranks else size.whole for name, size in sizes.items())


def lost(ranks, energies):
    return sum(sum(energies[name][rank:]) for name, rank in ranks.items())


def every_choice(sizes=SIZES):
    for choice in itertools.product(*([None, *range(1, size.most + 1)] for size in sizes.values())):
        yield {name: rank for name, rank in zip(sizes, choice, strict=True) if rank is not None}


@pytest.mark.parametrize(("outputs", "inputs"), [(6, 18), (18, 6), (64, 64), (2, 2), (1, 9), (3, 3)])
def test_the_largest_rank_that_saves_parameters(outputs, inputs):
    size = Size(outputs, inputs)
    saving = [rank for rank in range(1, size.full + 1) if rank * (outputs + inputs) < outputs * inputs]
    assert size.most == max(saving, default=0)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99])
def test_the_smallest_rank_that_keeps_the_energy(seed, energy):
    energies = spectra(seed)
    ranks = ranks_by_energy(energies, SIZES, energy)
    for name, values in energies.items():
        smallest = int(np.argmax(np.cumsum(values) >= energy - 1e-12)) + 1
        assert ranks.get(name) == (smallest if smallest <= SIZES[name].most else None)


@pytest.mark.parametrize("fraction", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("seed", range(8))
def test_the_budget_holds_and_no_other_choice_of_its_price_is_better(seed, fraction):
    energies = spectra(seed)
    budget = int(fraction * parameters({}))
    ranks = ranks_by_parameters(energies, SIZES, budget)
    assert parameters(ranks) <= budget
    assert all(1 <= rank <= SIZES[name].most for name, rank in ranks.items())
    best = min(lost(choice, energies) for choice in every_choice() if parameters(choice) <= budget)
    # The knapsack is not solved exactly; the greedy choice is off by less than what one step can bring.
    assert lost(ranks, energies) <= best + max(max(values) for values in energies.values())
    for name in ranks:  # no room is left for one more singular value
        if ranks[name] < SIZES[name].most:
            assert parameters(ranks | {name: ranks[name] + 1}) > budget


def test_the_greedy_choice_is_the_best_one_where_the_budget_is_met_by_a_step():
    """Along the way every choice is the best of its number of parameters: the lower convex hull of all choices."""
    exact = 0
    for seed in range(8):
        energies = spectra(seed)
        choices = [(parameters(choice), lost(choice, energies)) for choice in every_choice()]
        for budget in range(130, parameters({}), 20):
            ranks = ranks_by_parameters(energies, SIZES, budget)
            best = min(loss for price, loss in choices if price <= budget)
            exact += lost(ranks, energies) <= best + 1e-12
    assert exact > 0.6 * 8 * len(range(130, parameters({}), 20))


def test_a_layer_where_splitting_saves_nothing_stays_whole():
    sizes = {"thin": Size(1, 30), "wide": Size(10, 30)}
    energies = {"thin": [1.0], "wide": [0.1] * 10}
    assert sizes["thin"].most == 0
    assert ranks_by_parameters(energies, sizes, 200).keys() == {"wide"}
    assert ranks_by_energy({"thin": [1.0]}, sizes, 0.5) == {}


def test_equal_energies_are_taken_in_order():
    sizes = {"a": Size(8, 8), "b": Size(8, 8)}
    flat = {name: [1 / 8] * 8 for name in sizes}
    for budget in (32, 48, 64, 96):
        ranks = ranks_by_parameters(flat, sizes, budget)
        assert parameters(ranks, sizes) <= budget
        assert ranks == ranks_by_parameters(flat, sizes, budget)
    zeros = {name: [1.0, *[0.0] * 7] for name in sizes}
    assert lost(ranks_by_parameters(zeros, sizes, 64), zeros) == 0


def test_a_budget_that_cannot_be_met():
    least = parameters(dict.fromkeys(SIZES, 1))
    assert ranks_by_parameters(spectra(0), SIZES, least) == dict.fromkeys(SIZES, 1)
    with pytest.raises(ValueError, match=f"need a budget of at least {least} parameters.*got {least - 1}"):
        ranks_by_parameters(spectra(0), SIZES, least - 1)


def test_a_budget_that_is_met():
    assert ranks_by_parameters(spectra(0), SIZES, parameters({})) == {}
