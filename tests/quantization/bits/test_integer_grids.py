"""Bits that are chosen in training: when, for which weights, and over a resume."""

import logging

import lightning as L
import pytest
import torch

from lightning_compress import QATCallback, load_compressed
from lightning_compress.quantization import AffineGrid, MixedBits, scales
from lightning_compress.quantization.weights import grids_of
from lightning_compress.schedules import Constant, Linear
from lightning_compress.search import plan
from tests.support.promises import bits_on_average
from tests.support.runs import Randomness, resumes, trainer, uninterrupted
from tests.support.toys import Adapted, Batches, build, fit


def mixed(average=3, **options):
    return QATCallback(MixedBits(average), **({"activation_bits": None, "scale": scales.mse} | options))


def bits(module):
    return {name: grid.bits for name, grid in grids_of(module).items()}


class Look(L.Callback):
    """Bits of the weights after each step."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.seen.append(bits(pl_module))


def test_the_bits_are_chosen_once_when_gradients_have_come(caplog):
    caplog.set_level(logging.INFO)
    look, callback = Look(), mixed(schedule=Constant(), every_n_steps=1)
    module = build()
    fit(module, callback, look)
    assert look.seen[8] == {}
    first = look.seen[9]
    assert len(set(first.values())) > 1
    assert all(seen == first for seen in look.seen[9:])
    assert callback.report()["bits"] == first
    assert caplog.text.count("QATCallback chose") == 1
    bits_on_average(3, 2.8)(module)


def test_the_schedule_says_when():
    look = Look()
    fit(build(), mixed(schedule=Linear(0.5, 0.8), every_n_steps=3), look)
    assert look.seen[16] == {}
    assert look.seen[20]


def test_layers_whose_gradients_are_large_get_more_bits():
    """A layer whose output is scaled by ten has gradients ten times as large, at the same weights."""

    class Scaled(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.first, self.second = (torch.nn.Linear(16, 16, bias=False) for _ in range(2))
            self.second.load_state_dict(self.first.state_dict())

        def training_step(self, batch, batch_idx):
            x = batch[0].flatten(1)[:, :16]
            return (10 * self.first(x) - batch[1][:, None]).square().mean() + (self.second(x) - 1).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 1e-5)

    module = Scaled()
    trainer(mixed(4)).fit(module, Batches())
    found = bits(module)
    assert found["first.weight"] > found["second.weight"]


@resumes
def test_resumed_before_and_after_the_choice_is_uninterrupted(tmp_path):
    def run(*callbacks, ckpt_path=None):
        module = build()
        fit(module, mixed(schedule=Linear(0.1, 0.6), every_n_steps=3), Randomness(), *callbacks, ckpt_path=ckpt_path)
        return module

    uninterrupted(run, tmp_path, (2, 5, 9, 10, 11, 17, 30))


def test_a_short_run_chooses_at_its_end():
    look, module = Look(), build()
    fit(module, mixed(schedule=Constant()), look, max_epochs=1, limit_train_batches=6)
    assert look.seen[:5] == [{}] * 5
    bits_on_average(3, 2.8)(module)


def test_frozen_weights_beside_adapters_are_refused():
    with pytest.raises(ValueError, match="need weights with gradients to choose bits by, got 'net.0.base.weight'"):
        fit(build(kind=Adapted), mixed())


def test_grids_of_two_kinds_are_refused():
    class Other(AffineGrid):
        pass

    def scale(rows, bits):
        grid = scales.absmax(rows, bits)
        return grid if bits < 4 else Other(grid.scale, grid.zero_point, grid.low, grid.high)

    with pytest.raises((ValueError, TypeError), match="one kind|dataclass|name of its own"):
        QATCallback(MixedBits(3), scale=scale)


def test_a_plan_shows_bits_for_each_layer():
    example = torch.zeros(1, 1, 8, 8)
    planned = plan(build(), [mixed()], example)
    assert len({layer.bits for layer in planned.after.layers if layer.name.endswith("weight")}) > 1
    assert (
        planned.methods[0].notes[0] == "its bits are predicted by the weights alone: training chooses them by gradients"
    )


def test_a_checkpoint_carries_the_bits(tmp_path):
    module = build()
    run = fit(module, mixed(activation_bits=8))
    run.save_checkpoint(tmp_path / "m.ckpt")
    assert bits(load_compressed(type(module), tmp_path / "m.ckpt")) == bits(module)
