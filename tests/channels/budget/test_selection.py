import pytest
import torch

from lightning_compress.channels.budget.costs import sizes_of, total_cost
from lightning_compress.channels.budget.selection import choose_units, lowest_cost
from lightning_compress.channels.criteria import Member, batchnorm_scale, magnitude, members, taylor
from lightning_compress.channels.dependencies.removable import find_removable
from lightning_compress.channels.groups import Group, Slice, removed_entries
from tests.support.nets import Residual, Transformer

IMAGES = torch.zeros(2, 1, 8, 8)


def group(name, units, width=1, **slices):
    parts = tuple(
        Slice(f"{layer}.weight", dim, torch.arange(units * width).view(units, width), "out")
        for layer, dim in (slices or {name: 0}).items()
    )
    return Group(name, parts, width)


@pytest.mark.parametrize("fraction", [0.8, 0.5, 0.3])
@pytest.mark.parametrize("round_to", [1, 4])
def test_the_budget_holds_and_counts_are_round(fraction, round_to):
    model = Residual(width=32)
    plan = find_removable(model, IMAGES)
    sizes = sizes_of(model)
    dense = total_cost(sizes, plan.prices)
    scores = {g.name: torch.rand(g.units, generator=torch.Generator().manual_seed(0)) for g in plan.groups}
    removed = choose_units(plan.groups, scores, sizes, plan.prices, fraction * dense, round_to)
    for name, dims in removed_entries(plan.groups, removed).items():
        for dim, positions in dims.items():
            if name in sizes:
                sizes[name][dim] -= len(positions)
    assert fraction * (0.9 if round_to == 1 else 0.75) * dense < total_cost(sizes, plan.prices) <= fraction * dense
    for g in plan.groups:
        assert (g.units - int(removed[g.name].sum())) % round_to == 0
        kept, gone = (scores[g.name][which].tolist() for which in (~removed[g.name], removed[g.name]))
        assert min(kept) >= max(gone, default=0)


def test_odd_counts_become_round_with_the_first_block():
    removed = choose_units(
        [group("fc", 10)], {"fc": torch.arange(10.0)}, {"fc.weight": (10, 1)}, {"fc.weight": 1.0}, 9, 4
    )
    assert removed["fc"].tolist() == [True] * 2 + [False] * 8


def test_a_layer_keeps_at_least_one_block():
    groups = [group("fc", 10)]
    removed = choose_units(groups, {"fc": torch.rand(10)}, {"fc.weight": (10, 1)}, {"fc.weight": 1.0}, 0, 4)
    assert int(removed["fc"].sum()) == 6
    assert lowest_cost(groups, {"fc.weight": (10, 1)}, {"fc.weight": 1.0}, 4) == 4


def test_heads_count_as_wide_as_they_are():
    groups = [group("query", 6, width=8)]
    assert lowest_cost(groups, {"query.weight": (48, 1)}, {"query.weight": 1.0}, 16) == 16
    assert lowest_cost(groups, {"query.weight": (48, 1)}, {"query.weight": 1.0}, 1) == 8


def test_importance_per_saving_decides_between_layers():
    groups = [group("cheap", 4), group("dear", 4)]
    sizes = {"cheap.weight": (4, 1), "dear.weight": (4, 1)}
    scores = {"cheap": torch.ones(4), "dear": torch.ones(4)}
    removed = choose_units(groups, scores, sizes, {"cheap.weight": 1.0, "dear.weight": 10.0}, 34)
    assert (int(removed["cheap"].sum()), int(removed["dear"].sum())) == (0, 1)


def test_a_square_weight_shrinks_on_both_sides():
    square = Group(
        "c",
        (Slice("c.weight", 0, torch.arange(4)[:, None], "out"), Slice("c.weight", 1, torch.arange(4)[:, None], "in")),
    )
    removed = choose_units([square], {"c": torch.arange(4.0)}, {"c.weight": (4, 4)}, {"c.weight": 1.0}, 4)
    assert int(removed["c"].sum()) == 2


def test_criteria_by_hand():
    ones = torch.ones(2, 1)
    rows = [
        Member("out", torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])),
        Member("scale", torch.tensor([[0.1], [0.3]]), ones),
        Member("other", torch.tensor([[0.0], [-2.0]]), ones),
        Member("in", torch.tensor([[1.0], [1.0]]), ones),
    ]
    torch.testing.assert_close(magnitude(rows), torch.tensor([0.9 + 0.5, 0.1 + 0.5]))
    torch.testing.assert_close(batchnorm_scale(rows), torch.tensor([0.25, 0.75]))
    torch.testing.assert_close(batchnorm_scale(rows[:1]), torch.tensor([0.9, 0.1]))
    torch.testing.assert_close(taylor(rows), torch.tensor([(3 + 0.1) ** 2, (2 + 0.3 - 2) ** 2]))


def test_members_are_the_entries_of_each_unit():
    model = Transformer()
    weights = dict(model.named_parameters())
    heads = next(g for g in find_removable(model, IMAGES).groups if g.width == 4)
    found = {part.name: member for part, member in zip(heads.slices, members(heads, weights, {}), strict=True)}
    torch.testing.assert_close(found["attention.query.weight"].weight[1], model.attention.query.weight[4:8].flatten())
    torch.testing.assert_close(found["attention.out.weight"].weight[1], model.attention.out.weight[:, 4:8].T.flatten())
    assert not found["attention.out.weight"].gradient.any()
