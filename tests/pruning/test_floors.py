"""A common threshold with a floor: exact in total, no layer below the floor, and optimal among the others."""

import pytest
import torch
import torch.distributed as dist

from lightning_compress.pruning.floors import kept_units
from tests.support.distributed import run_distributed


def layers(seed=0):
    """Scores of five layers, the last two far smaller than the others; one layer is empty."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"first": (40, 25), "second": (300,), "empty": (0, 3), "small": (50, 10), "tiny": (7,)}
    scales = {"first": 1.0, "second": 0.5, "empty": 1.0, "small": 1e-3, "tiny": 1e-5}
    return {name: scales[name] * torch.rand(shape, generator=generator) for name, shape in shapes.items()}


def kept(scores, fraction, floor, group=None):
    return kept_units(lambda name: [scores[name]], list(scores), fraction, floor, group)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.3, 0.6, 0.9, 0.98, 0.99])
@pytest.mark.parametrize("floor", [0.0, 0.01, 0.1])
def test_the_total_is_exact_and_no_layer_falls_below_the_floor(fraction, floor, seed):
    scores = layers(seed)
    found = kept(scores, fraction, floor)
    total = sum(t.numel() for t in scores.values())
    assert sum(int((~one).sum()) for one in found.values()) == round(fraction * total)
    for name, one in found.items():
        assert one.shape == scores[name].shape
        if fraction < 1 - floor:
            assert int(one.sum()) >= floor * one.numel()
        else:
            assert int(one.sum()) >= int((1 - fraction) * one.numel())


@pytest.mark.parametrize("fraction", [0.3, 0.6, 0.8])
def test_the_smallest_scores_are_masked_where_the_floor_allows_it(fraction):
    scores, floor = layers(), 0.1
    found = kept(scores, fraction, floor)
    for name, one in found.items():
        assert not one.any() or one.all() or scores[name][~one].max() <= scores[name][one].min()
    free = [name for name, one in found.items() if one.numel() and one.float().mean() > floor + 1 / one.numel()]
    masked = torch.cat([scores[name][~found[name]] for name in free])
    left = torch.cat([scores[name][found[name]] for name in free])
    assert not len(masked) or masked.max() <= left.min()


def test_without_a_weak_layer_it_is_the_common_threshold():
    scores = {name: torch.rand(100, generator=torch.Generator().manual_seed(n)) for n, name in enumerate("abc")}
    everything = torch.cat(list(scores.values()))
    expected = everything >= everything.kthvalue(271).values
    assert torch.equal(torch.cat(list(kept(scores, 0.9, 0.01).values())), expected)


def _sharded():
    dist.init_process_group("gloo")
    try:
        shards = {name: one.flatten().chunk(2)[dist.get_rank()] for name, one in layers().items() if one.numel()}
        return {name: one.tolist() for name, one in kept(shards, 0.88, 0.1, dist.group.WORLD).items()}
    finally:
        dist.destroy_process_group()


def test_processes_agree_on_the_floor():
    whole = {name: one.flatten().tolist() for name, one in kept(layers(), 0.88, 0.1).items() if one.numel()}
    first, second = run_distributed(_sharded)
    assert {name: first[name] + second[name] for name in whole} == whole
