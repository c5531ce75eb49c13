"""Momentum and target networks inside the module, as BYOL, MoCo, DINO and DQN have them."""

import copy

import pytest
import torch
from torch import nn

from lightning_compress import ChannelPruningCallback
from lightning_compress.schedules import Linear
from tests.support.toys import Digits, build, fit

SOON = Linear(0.3, 0.6)


class Momentum(Digits):
    """A frozen copy of the network beside it, which follows it after every step if ``follows``."""

    follows = True

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.target = copy.deepcopy(self.net).requires_grad_(False)
        self.seen = 0

    def on_train_batch_end(self, *_):
        self.seen += 1
        if self.follows:
            with torch.no_grad():
                for follower, parameter in zip(self.target.parameters(), self.net.parameters(), strict=True):
                    follower.lerp_(parameter, 0.1)


class Teacher(Momentum):
    """The copy stays as it is, as a teacher does."""

    follows = False


def channels(**options):
    return ChannelPruningCallback(0.5, round_to=4, schedule=SOON, every_n_steps=3, **options)


def test_a_momentum_network_is_refused_after_the_first_step():
    module = build(kind=Momentum)
    with pytest.raises(
        ValueError, match=r"need remove=False to prune the channels of 'net', got 'target', a copy that"
    ):
        fit(module, channels())
    assert module.seen == 1
    assert module.net[0].weight.shape == module.target[0].weight.shape


def test_masked_channels_leave_a_momentum_network_wide():
    module = build(kind=Momentum)
    fit(module, channels(remove=False))
    assert module.target[0].weight.shape == module.net[0].weight.shape
    assert (module.net[3].weight.flatten(1) == 0).all(1).any()


def test_a_frozen_copy_that_nothing_writes_is_no_obstacle():
    module = build(kind=Teacher)
    fit(module, channels())
    assert module.net[3].weight.shape != module.target[3].weight.shape


def test_layers_of_the_same_shapes_that_are_trained_are_no_copies():
    module = build()
    module.other = nn.Linear(64, 32)
    fit(module, channels())
    assert len(module.net[3].weight) < 16
