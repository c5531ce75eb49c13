"""Layers with adapters are found, and what they add; others are refused by name."""

import copy

import pytest
import torch
from torch import nn

from lightning_compress import PruningCallback
from lightning_compress.adapters import additive_paths, declare
from lightning_compress.targets import select
from tests.support.toys import Adapted, Added, Digits, build, fit


def test_what_a_declared_layer_adds_is_found_in_copies_too():
    net = nn.Sequential(nn.Linear(3, 3), Added(nn.Linear(3, 2)))
    nn.init.ones_(net[1].up)
    copied = copy.deepcopy(net)
    nn.init.zeros_(copied[1].up)
    (path,), (other,) = additive_paths(net), additive_paths(copied)
    assert (path.name, path.weight_name, path.key) == ("1", "1.base.weight", "weight")
    assert path.base is net[1].base
    assert path.adapters == [net[1].down, net[1].up]
    assert torch.equal(path(), net[1].up.detach() @ net[1].down.detach())
    assert not other().any()


def test_the_base_is_a_target_and_its_adapter_is_left_alone():
    selection = select(build(kind=Adapted))
    assert [target.name for target in selection] == [f"net.{index}.base.weight" for index in (0, 3, 9, 11)]
    part = "a part of an adapter: the weight that it adds to is compressed"
    assert {name for name, reason in selection.skipped.items() if reason == part} == {
        f"net.{index}.{key}" for index in (0, 3, 9, 11) for key in ("down", "up")
    }


def test_patterns_match_the_name_of_the_layer():
    names = [target.name for target in select(build(kind=Adapted), include=("net.3", "net.9.weight"))]
    assert names == ["net.3.base.weight", "net.9.base.weight"]


def test_a_frozen_weight_with_a_frozen_adapter_is_frozen():
    module = build(kind=Adapted)
    module.net[9].requires_grad_(False)
    assert select(module).skipped["net.9.base.weight"] == "frozen: name it in include to compress it"


def test_a_tied_weight_is_left_alone():
    module = build(kind=Adapted)
    module.other = nn.Linear(64, 32)
    module.other.weight = module.net[9].base.weight
    reason = "tied: its adapter adds to it in one of the layers alone"
    assert select(module).skipped["net.9.base.weight"] == reason


@pytest.mark.parametrize("weight", ["up", "base.other"])
def test_a_layer_without_the_weight_is_refused(weight):
    error = rf"need weight as the name of one in a module of the layer, got '{weight}'; there are: \['base.weight"
    with pytest.raises(ValueError, match=error):
        declare(Added(nn.Linear(3, 2)), weight, Added.delta)


def test_a_delta_is_a_function_and_has_the_shape_of_the_weight():
    layer = Added(nn.Linear(3, 2))
    with pytest.raises(TypeError, match="need delta as a function of the layer, got 1.0"):
        declare(layer, "base.weight", 1.0)
    declare(layer, "base.weight", lambda layer: layer.up)
    (path,) = additive_paths(layer)
    with pytest.raises(ValueError, match=r"need a delta of the shape of 'base.weight', \(2, 3\), got \(2, 2\)"):
        path()


def test_scaling_by_hand_is_followed_where_the_model_is_seen():
    """The delta changes outside of any optimizer step; the next step and the end of fit project with the new one."""

    class Scaled(Adapted):
        def on_train_batch_start(self, batch, batch_idx):
            if self.global_step == 20:
                with torch.no_grad():
                    self.net[9].up.mul_(3.0)

    module = build(kind=Scaled)
    fit(module, PruningCallback(0.5, include=("net.9",), every_n_steps=5))
    layer = module.net[9]
    assert int((layer.base.weight + layer.delta() == 0).sum()) == layer.base.weight.numel() // 2


def test_a_model_without_adapters_has_no_paths():
    assert not additive_paths(Digits())
