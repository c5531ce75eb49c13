"""The choice of bits: the least cost of all combinations, within the average."""

from itertools import product

import numpy as np
import pytest
import torch

from lightning_compress import QATCallback
from lightning_compress.quantization import MixedBits, scales
from lightning_compress.quantization.bits.mixed import choose_bits, told

SIZES = {"a": 40, "b": 120, "c": 10, "d": 60}


def layers(seed):
    generator = torch.Generator().manual_seed(seed)
    weights = {name: torch.randn(4, size, generator=generator) for name, size in SIZES.items()}
    fisher = {name: 10.0**i * torch.rand(4, size, generator=generator) for i, (name, size) in enumerate(SIZES.items())}
    return weights, fisher


def project(name, weight, bits):
    return scales.mse(weight, bits).nearest(weight)


def costs(weights, fisher, choices):
    """Cost of each weight at each number of bits, by numpy."""

    def cost(name, bits):
        error = (weights[name] - project(name, weights[name], bits)).double().numpy()
        return 0.5 * np.sum(fisher[name].double().numpy() * error**2)

    return {name: {bits: cost(name, bits) for bits in choices} for name in weights}


@pytest.mark.parametrize("average", [2.5, 3, 4.2])
@pytest.mark.parametrize("seed", range(3))
def test_no_combination_of_as_many_bits_costs_less(average, seed):
    weights, fisher = layers(seed)
    mixed = MixedBits(average, choices=(2, 3, 4, 8))
    chosen = choose_bits(mixed, weights, fisher, project)
    table = costs(weights, fisher, mixed.choices)

    def cost(bits):
        return sum(table[name][number] for name, number in bits.items())

    def size(bits):
        return sum(number * SIZES[name] for name, number in bits.items())

    assert size(chosen) <= average * sum(SIZES.values())
    combinations = [dict(zip(SIZES, bits, strict=True)) for bits in product(mixed.choices, repeat=len(SIZES))]
    assert cost(chosen) == pytest.approx(min(cost(one) for one in combinations if size(one) <= size(chosen)))


def test_a_weight_without_gradients_counts_as_the_others_on_average():
    weights, _ = layers(0)
    alike = {name: torch.ones_like(weight) for name, weight in weights.items()}
    without = {name: one for name, one in alike.items() if name != "b"}
    assert choose_bits(MixedBits(3), weights, without, project) == choose_bits(MixedBits(3), weights, alike, project)
    assert choose_bits(MixedBits(3), weights, {}, project) == choose_bits(MixedBits(3), weights, alike, project)


def test_a_scale_of_the_fisher_information_changes_nothing():
    weights, fisher = layers(1)
    scaled = {name: 1e-12 * one for name, one in fisher.items()}
    assert choose_bits(MixedBits(3), weights, fisher, project) == choose_bits(MixedBits(3), weights, scaled, project)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ((2,), ValueError, "need an average above the fewest bits, 2, up to the most, 8, got average=2"),
        ((9,), ValueError, "got average=9"),
        ((float("nan"),), ValueError, "need average as a number, got nan"),
        (("3",), TypeError, "average"),
        ((3, (4,)), ValueError, r"need two choices or more, got choices=\(4,\): give the number as weight_bits"),
        ((3, (1, 4)), ValueError, "need 2 <= choices <= 8, got choices=1"),
        ((3, (2.5, 4)), TypeError, "choices"),
        ((3, 4), TypeError, "need choices as numbers of bits, such as \\(2, 4, 8\\), got 4"),
        ((3, "248"), TypeError, "need choices as numbers of bits"),
    ],
)
def test_wrong_arguments(arguments, error, match):
    with pytest.raises(error, match=match):
        MixedBits(*arguments)


def test_choices_are_in_order_and_the_usual_number_is_within_the_average():
    mixed = MixedBits(3.5, choices=[8, 2, 4, 2])
    assert mixed.choices == (2, 4, 8)
    assert mixed.usual == 2
    assert QATCallback(mixed).weight_bits == mixed


def test_the_choice_in_words():
    assert told({"a": 2, "b": 8}, {"a": 30, "b": 10}).splitlines() == [
        "3.50 bits a weight on average",
        "  2 bits: a",
        "  8 bits: b",
    ]
