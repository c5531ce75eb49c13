"""Budgets that are met: a layer of 8 units (4 weights each) behind one of 4 (2 weights each), 40 weights in all."""

import re
from dataclasses import replace

import pytest
import torch

from lightning_compress.channels.budget.budgets import budget_of
from lightning_compress.channels.budget.costs import Costs
from lightning_compress.channels.budget.model_budgets import ModelBudget
from lightning_compress.channels.groups import Group, Slice

SIZES = {"a.weight": (8, 4), "b.weight": (4, 2)}
SCORES = {"a": torch.arange(8.0), "b": torch.arange(4.0)}


def model_budget(fraction, round_to=1, sizes=None, **budget):
    groups = tuple(
        Group(name, (Slice(f"{name}.weight", 0, torch.arange(units)[:, None], "out"),))
        for name, (units, _) in zip("ab", (sizes or SIZES).values(), strict=True)
    )
    prices = {"macs": {"a.weight": 10.0, "b.weight": 1.0}, "parameters": dict.fromkeys(SIZES, 1.0)}
    return ModelBudget(budget_of(**budget), fraction, groups, Costs(sizes or SIZES, SIZES, prices), round_to)


def left(removed):
    return {name: int((~units).sum()) for name, units in removed.items()}


@pytest.mark.parametrize(("strength", "most"), [(0.0, 40), (0.5, 30), (1.0, 20)])
def test_parameters(strength, most):
    kept = left(model_budget(0.5, parameters=0.5).choose(SCORES, strength))
    assert most - 4 < 4 * kept["a"] + 2 * kept["b"] <= most


@pytest.mark.parametrize(
    ("strength", "kept"), [(0.0, {"a": 8, "b": 4}), (0.5, {"a": 6, "b": 3}), (1.0, {"a": 4, "b": 2})]
)
def test_channels_keep_the_same_fraction_of_every_group(strength, kept):
    assert left(model_budget(0.5, channels=0.5).choose(SCORES, strength)) == kept


def test_removal_by_an_earlier_run_counts():
    small = {"a.weight": (4, 4), "b.weight": (2, 2)}
    assert model_budget(0.5, parameters=0.5, sizes=small).is_met
    assert model_budget(0.5, channels=0.5, sizes=small).is_met
    assert not model_budget(0.4, parameters=0.4, sizes=small).is_met
    assert not model_budget(0.5, channels=0.5).is_met


def test_unit_of_cost():
    assert [
        model_budget(0.5, **{name: 0.5}).unit_of_cost for name in ("macs", "parameters", "latency", "channels")
    ] == [
        "macs",
        "parameters",
        "macs",
        "macs",
    ]


@pytest.mark.parametrize(
    ("groups", "need"),
    [
        ((), "channels that can go, got {}=0.5: no layer has any, so compress its weights"),
        (None, "layers that can lose channels with round_to=16, got {}=0.5: lower round_to"),
    ],
    ids=["no groups", "too coarse"],
)
@pytest.mark.parametrize("kind", ["macs", "parameters", "channels"])
def test_where_nothing_can_go_a_larger_budget_is_no_way_out(groups, need, kind):
    budget = model_budget(0.5, round_to=16, **{kind: 0.5})
    budget = budget if groups is None else replace(budget, groups=groups)
    with pytest.raises(ValueError, match=f"need {need.format(kind)}"):
        budget.check_reach({"head": "an output"}, remove_blocks=False)


def test_the_least_that_is_named_can_be_asked_for():
    """It is rounded up."""
    with pytest.raises(ValueError, match="need macs >= ") as refused:
        model_budget(0.3, round_to=4, macs=0.3).check_reach({}, remove_blocks=True)
    least = float(re.search(r">= ([\d.]+) for", str(refused.value))[1])
    model_budget(least, round_to=4, macs=least).check_reach({}, remove_blocks=True)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (
            {"macs": 0.3},
            r"need macs >= 0\.51[23] for .* with round_to=4, got macs=0\.3: raise macs to remove less, lower round_to",
        ),
        ({"parameters": 0.3}, r"need parameters >= 0\.600 .* got parameters=0\.3: .*; left alone: an output: head$"),
        (
            {"channels": 0.9},
            r"need channels <= 0\.750 for .* with round_to=4, got channels=0\.9: lower channels to remove more, or",
        ),
    ],
)
def test_budgets_out_of_reach(budget, message):
    with pytest.raises(ValueError, match=message):
        model_budget(*budget.values(), round_to=4, **budget).check_reach({"head": "an output"}, remove_blocks=True)
    model_budget(0.6, round_to=4, parameters=0.6).check_reach({}, remove_blocks=False)


@pytest.mark.parametrize("remove_blocks", [True, False])
def test_a_hint_proposes_to_remove_blocks_unless_it_is_done(remove_blocks):
    with pytest.raises(ValueError, match="need macs") as refused:
        model_budget(0.3, round_to=4, macs=0.3).check_reach({}, remove_blocks=remove_blocks)
    assert ("remove_blocks=True" in str(refused.value)) != remove_blocks
