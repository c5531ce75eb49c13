"""Budgets that are met: a layer of 8 units (4 weights each) behind one of 4 (2 weights each), 40 weights in all."""

import pytest
import torch

from lightning_compress.channels.budget.budgets import Costs, budget_of
from lightning_compress.channels.budget.reductions import Reduction
from lightning_compress.channels.groups import Group, Slice

SIZES = {"a.weight": (8, 4), "b.weight": (4, 2)}
SCORES = {"a": torch.arange(8.0), "b": torch.arange(4.0)}


def reduction(share, round_to=1, sizes=None, **budget):
    groups = tuple(
        Group(name, (Slice(f"{name}.weight", 0, torch.arange(units)[:, None], "out"),))
        for name, (units, _) in zip("ab", (sizes or SIZES).values(), strict=True)
    )
    prices = {"macs": {"a.weight": 10.0, "b.weight": 1.0}, "parameters": dict.fromkeys(SIZES, 1.0)}
    return Reduction(budget_of(**budget), share, groups, Costs(sizes or SIZES, SIZES, prices), round_to)


def left(removed):
    return {name: int((~units).sum()) for name, units in removed.items()}


@pytest.mark.parametrize(("strength", "most"), [(0.0, 40), (0.5, 30), (1.0, 20)])
def test_parameters(strength, most):
    kept = left(reduction(0.5, parameters=0.5).choose(SCORES, strength))
    assert most - 4 < 4 * kept["a"] + 2 * kept["b"] <= most


@pytest.mark.parametrize(
    ("strength", "kept"), [(0.0, {"a": 8, "b": 4}), (0.5, {"a": 6, "b": 3}), (1.0, {"a": 4, "b": 2})]
)
def test_channels_keep_the_same_fraction_of_every_group(strength, kept):
    assert left(reduction(0.5, channels=0.5).choose(SCORES, strength)) == kept


def test_what_an_earlier_run_has_removed_counts():
    small = {"a.weight": (4, 4), "b.weight": (2, 2)}
    assert reduction(0.5, parameters=0.5, sizes=small).is_met
    assert reduction(0.5, channels=0.5, sizes=small).is_met
    assert not reduction(0.4, parameters=0.4, sizes=small).is_met
    assert not reduction(0.5, channels=0.5).is_met


def test_what_is_counted():
    assert [reduction(0.5, **{name: 0.5}).priced for name in ("macs", "parameters", "latency", "channels")] == [
        "macs",
        "parameters",
        "macs",
        "macs",
    ]


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            {"macs": 0.3},
            r"need macs >= 0\.512 for .* with round_to=4, got macs=0\.3: raise macs to remove less, or lower round_to",
        ),
        ({"parameters": 0.3}, r"need parameters >= 0\.600 .* got parameters=0\.3: .*; left alone: head \(an output\)"),
        (
            {"channels": 0.9},
            r"need channels <= 0\.750 for .* with round_to=4, got channels=0\.9: lower channels to remove more, or",
        ),
    ],
)
def test_what_is_out_of_reach(budget, message):
    with pytest.raises(ValueError, match=message):
        reduction(*budget.values(), round_to=4, **budget).check_reach({"head": "an output"})
    reduction(0.6, round_to=4, parameters=0.6).check_reach({})
