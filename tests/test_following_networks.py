"""Momentum and target networks inside the module, as BYOL, MoCo, DINO, DQN and SAC have them."""

import copy

import pytest
import torch
from torch import nn

from lightning_compress import ChannelPruningCallback, LowRankCallback, export, load_compressed
from lightning_compress.low_rank.splitting import split_layers_
from lightning_compress.schedules import Linear
from tests.support.runs import Randomness, uninterrupted
from tests.support.toys import Digits, Shortcut, build, digits, fit

SOON = Linear(0.3, 0.6)


class Momentum(Digits):
    """A frozen copy of the network beside it, which moves towards it before every step in ``every``; never, if 0."""

    every = 1

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.alter()
        self.target = copy.deepcopy(self.net).requires_grad_(False)

    def alter(self):
        self.net[8].p = 0.0  # dropout draws other numbers in narrower layers

    def on_train_batch_start(self, *_):
        if self.every and self.global_step % self.every == 0:
            with torch.no_grad():
                for follower, parameter in zip(self.target.parameters(), self.net.parameters(), strict=True):
                    follower.lerp_(parameter, 0.1)


class Seldom(Momentum):
    every = 7


class Teacher(Momentum):
    """The copy stays as it is, as a teacher does."""

    every = 0


class Residual(Momentum):
    def alter(self):
        self.net[2] = Shortcut(8)


class Twins(Momentum):
    """Two networks of the same shapes, and a copy of each."""

    def alter(self):
        self.second = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        self.first = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
        self.targets = copy.deepcopy(nn.ModuleList([self.first, self.second])).requires_grad_(False)

    def forward(self, images):
        pixels = images.flatten(1)
        return self.first(pixels) + self.second(pixels)

    def on_train_batch_start(self, *_):
        with torch.no_grad():
            for target, network in zip(self.targets, (self.first, self.second), strict=True):
                for follower, parameter in zip(target.parameters(), network.parameters(), strict=True):
                    follower.lerp_(parameter, 0.1)


def channels(**options):
    return ChannelPruningCallback(0.5, round_to=4, schedule=SOON, every_n_steps=3, **options)


def shapes(module):
    return {name: parameter.shape for name, parameter in module.named_parameters()}


def test_a_momentum_network_loses_the_channels_of_the_network_that_it_follows():
    masked, module = build(kind=Momentum), build(kind=Momentum)
    fit(masked, channels(remove=False))
    fit(module, channels())
    assert shapes(module.target) == shapes(module.net) != shapes(masked.net)
    rows = masked.net[0].weight.flatten(1).ne(0).any(1)  # a network of masked channels trains in the same way
    torch.testing.assert_close(module.net[0].weight, masked.net[0].weight[rows])
    torch.testing.assert_close(module.target[0].weight, masked.target[0].weight[rows])
    torch.testing.assert_close(module.target[1].running_mean, masked.target[1].running_mean[rows])
    assert module.target(digits()[0][:4]).shape == (4, 10)


def test_a_checkpoint_of_it_loads(tmp_path):
    module = build(kind=Momentum)
    fit(module, channels())
    export(module, tmp_path / "model.lcz")
    loaded = load_compressed(Momentum, tmp_path / "model.lcz").eval()
    images = digits()[0][:4]
    torch.testing.assert_close(loaded.target(images), module.eval().target(images))


@pytest.mark.parametrize("kind", [Momentum, Seldom])
def test_resumed_runs_end_in_the_same_bits(kind, tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = build(kind=kind)
        fit(module, Randomness(), channels(), *callbacks, ckpt_path=ckpt_path)
        return module

    module = uninterrupted(run, tmp_path, [8, 21, 22, 30])
    assert shapes(module.target) == shapes(module.net) != shapes(build().net)


def test_residual_branches_are_removed_from_it_too():
    module = build(kind=Residual)
    fit(module, ChannelPruningCallback(0.15, round_to=4, remove_blocks=True, schedule=SOON, every_n_steps=3))
    assert shapes(module.target) == shapes(module.net)
    assert not any("conv1.weight" in name for name in shapes(module.net))
    assert module.target(digits()[0][:4]).shape == (4, 10)


def test_of_networks_of_the_same_shapes_each_copy_follows_its_own():
    masked, module = build(kind=Twins), build(kind=Twins)
    fit(masked, channels(remove=False))
    fit(module, channels())
    for wide, narrow, network in zip(masked.targets, module.targets, (masked.first, masked.second), strict=True):
        rows = network[0].weight.ne(0).any(1)
        assert 0 < rows.sum() < 32
        torch.testing.assert_close(narrow[0].weight, wide[0].weight[rows])


def test_a_frozen_copy_that_nothing_writes_keeps_its_channels_and_is_named(caplog):
    module = build(kind=Teacher)
    with caplog.at_level("INFO", logger="lightning.pytorch.utilities.rank_zero"):
        fit(module, channels())
    assert "'target' keeps its shapes: it is frozen, and no code has written it from 'net' before" in caplog.text
    assert shapes(module.target) == shapes(build().net) != shapes(module.net)


def test_layers_of_the_same_shapes_that_are_trained_are_no_copies():
    module = build()
    module.other = nn.Linear(64, 32)
    fit(module, channels())
    assert len(module.net[3].weight) < 16


def test_it_is_split_with_the_network_that_it_follows(tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = build(kind=Momentum)
        fit(module, Randomness(), LowRankCallback(0.5, schedule=SOON, every_n_steps=3), *callbacks, ckpt_path=ckpt_path)
        return module

    module = uninterrupted(run, tmp_path, [21, 22, 30])
    assert shapes(module.target) == shapes(module.net) != shapes(build().net)
    assert module.target(digits()[0][:4]).shape == (4, 10)


def test_a_follower_takes_the_left_factor_of_the_network():
    module = nn.ModuleDict({"net": nn.Linear(8, 6), "target": nn.Linear(8, 6)})
    weight = module["target"].weight.detach().clone()
    split_layers_(module, {"net": 2}, followed={"target": "net"})
    left = module["net"].get_parameter("second.weight").detach()
    torch.testing.assert_close(module["target"].get_parameter("second.weight").detach(), left)
    nearest = torch.linalg.lstsq(left, weight).solution
    torch.testing.assert_close(module["target"].get_parameter("first.weight").detach(), nearest)
