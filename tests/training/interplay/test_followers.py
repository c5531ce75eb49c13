"""Momentum and target networks inside the module, which no optimizer steps."""

import copy

import pytest
import torch

from lightning_compress import PruningCallback, QATCallback, WeightSharingCallback
from lightning_compress.schedules import Constant, Linear
from tests.support.runs import Randomness, Save, resumes, same
from tests.support.toys import Digits, build, fit


class Momentum(Digits):
    """A copy of the last layers follows them, as in BYOL and MoCo, and is used in the loss."""

    frozen = True

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.key = copy.deepcopy(self.net[9:]).requires_grad_(not self.frozen)
        self.expected = self.key[0].weight.detach().clone()
        self.farthest = self.distance = 0.0

    def training_step(self, batch, batch_idx):
        with torch.no_grad():
            for name, parameter in self.net[9:].named_parameters():
                self.key.get_parameter(name).lerp_(parameter, 0.05)
            self.expected.lerp_(self.net[9].weight, 0.05)
        self.distance = float((self.key[0].weight.detach() - self.expected).norm() / self.expected.norm())
        self.farthest = max(self.farthest, self.distance)
        return super().training_step(batch, batch_idx)


class Trainable(Momentum):
    """The copy is in the optimizer, and no gradient reaches it."""

    frozen = False


class Target(Momentum):
    """A copy is renewed now and then, as in DQN; between, it stands still."""

    def training_step(self, batch, batch_idx):
        self.farthest = max(self.farthest, float((self.key[0].weight.detach() - self.expected).abs().max()))
        if self.global_step % 5 == 0:
            self.key.load_state_dict(self.net[9:].state_dict())
            self.expected = self.key[0].weight.detach().clone()
        return super(Momentum, self).training_step(batch, batch_idx)


class TrainableTarget(Target):
    frozen = False


METHODS = {
    "pruning": lambda **options: PruningCallback(0.5, every_n_steps=3, **options),
    "sharing": lambda **options: WeightSharingCallback(8, schedule=Linear(0.1, 0.4), every_n_steps=3, **options),
    "bits": lambda **options: QATCallback(4, activation_bits=None, every_n_steps=3, **options),
    "at once": lambda **options: WeightSharingCallback(8, schedule=Constant(), **options),
}


def compressed(method, weight):
    if method == "pruning":
        return (weight == 0).float().mean() > 0.2
    if method == "bits":
        return all(len(row.unique()) <= 16 for row in weight)
    return len(weight.unique()) <= 8


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Momentum, Target])
def test_a_frozen_follower_is_left_alone(kind, method, recwarn):
    module = build(kind=kind)
    fit(module, METHODS[method]())
    assert module.farthest < 1e-6
    assert compressed(method, module.net[9].weight)
    assert not compressed(method, module.key[0].weight) or kind is Target  # a copy of compressed weights is compressed
    assert not [warning for warning in recwarn if "writes into" in str(warning.message)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [Momentum, Trainable, Target, TrainableTarget])
def test_a_follower_keeps_what_is_written_and_ends_compressed(kind, method, recwarn):
    module = build(kind=kind)
    seen = []

    def validation_step(batch, batch_idx):
        seen.append(compressed(method, module.key[0].weight))

    module.validation_step = validation_step
    fit(module, METHODS[method](include=("net.*", "key.*")))
    # The first write follows on the projected weight, where the weight was projected before it.
    assert module.farthest < (0.5 if method == "at once" else 1e-6)
    assert seen[1:] == [True, True]
    assert compressed(method, module.key[0].weight)
    assert not [warning for warning in recwarn if "writes into" in str(warning.message)]


def test_a_follower_is_not_held_on_a_grid():
    """A slow mean would never leave a point of it. Only the first write follows on a projected weight."""
    module = build(kind=Trainable)
    fit(module, QATCallback(2, activation_bits=None, schedule=Constant()))
    assert module.farthest > 0.2
    assert module.distance < 0.2 * module.farthest


@resumes
@pytest.mark.parametrize("method", METHODS)
def test_a_follower_resumes(method, tmp_path):
    whole, resumed = build(kind=Trainable), build(kind=Trainable)
    fit(whole, METHODS[method](), Randomness(), Save(tmp_path, [17]))
    saved = torch.load(tmp_path / "step=17.ckpt", weights_only=True)
    assert compressed(method, saved["state_dict"]["key.9.weight"])
    assert "key.9.weight" in saved["opened_weights"]
    fit(resumed, METHODS[method](), Randomness(), ckpt_path=tmp_path / "step=17.ckpt")
    assert same(whole, resumed)
