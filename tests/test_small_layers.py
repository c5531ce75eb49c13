"""Layers that are computed together train as each does by itself, bit for bit."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_compress import (
    NM,
    BinarizationCallback,
    LowRankCallback,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
    blocks,
)
from lightning_compress.pruning import criteria
from lightning_compress.pruning.patterns import Block
from lightning_compress.quantization import PerGroup, scales
from lightning_compress.schedules import Step
from lightning_compress.sharing import gradients
from tests.support.classifiers import Classifier, fit
from tests.support.runs import Save, resumes

REGROWTH = partial(PruningCallback, 0.8, regrow=True, every_n_steps=2)
METHODS = {
    "pruning": lambda: [PruningCallback(0.8, every_n_steps=2)],
    "pruning by taylor": lambda: [PruningCallback(0.8, criterion=criteria.taylor, every_n_steps=2)],
    "regrowth": lambda: [REGROWTH()],
    "regrowth by taylor": lambda: [REGROWTH(criterion=criteria.taylor)],
    "pruning by wanda": lambda: [PruningCallback(0.8, criterion=criteria.wanda, every_n_steps=2)],
    "pruning with a floor": lambda: [PruningCallback(0.9, floor=0.3, every_n_steps=2)],
    "pruning of layers": lambda: [PruningCallback(0.8, scope="layer", every_n_steps=2)],
    "2:4": lambda: [PruningCallback(pattern=NM(2, 4), every_n_steps=2)],
    "blocks": lambda: [PruningCallback(0.5, pattern=Block(4, 2), every_n_steps=2)],
    "grids": lambda: [QATCallback(4, activation_bits=None, scale=scales.mse, every_n_steps=2)],
    "fixed point": lambda: [QATCallback(6, activation_bits=None, scale=scales.power_of_two, every_n_steps=2)],
    "groups": lambda: [QATCallback(4, activation_bits=None, granularity=PerGroup(8), scale=scales.minmax)],
    "binary": lambda: [BinarizationCallback(every_n_steps=2)],
    "sharing": lambda: [WeightSharingCallback(8, every_n_steps=2)],
    "sharing of all layers": lambda: [WeightSharingCallback(8, scope="global", every_n_steps=2)],
    "sharing without a ramp": lambda: [WeightSharingCallback(8, schedule=Step(0.3))],
    "sharing by gradients": lambda: [WeightSharingCallback(8, gradient=gradients.mean, schedule=Step(0.3))],
    "sharing and regrowth": lambda: [REGROWTH(), WeightSharingCallback(4, schedule=Step(0.3))],
    "low rank": lambda: [LowRankCallback(parameters=0.6)],
    "all": lambda: [PruningCallback(0.7, every_n_steps=2), WeightSharingCallback(6, every_n_steps=2), QATCallback()],
}

APART = ["grids", "fixed point", "groups", "binary", "sharing without a ramp", "sharing by gradients"]
"""The methods that do not refuse weights that are no numbers, and where no layer depends on another."""


def in_a_row() -> Classifier:
    """Layers of one shape follow each other, and layers of two shapes take turns."""
    torch.manual_seed(0)
    widths = [64, 16, 16, 16, 24, 16, 24, 16, 24, 16]
    layers = [part for sizes in pairwise(widths) for part in (nn.Linear(*sizes), nn.ReLU())]
    return Classifier(nn.Sequential(nn.Flatten(), *layers, nn.Linear(16, 12)))


class Beside(Classifier):
    """Layers beside each other: none of them changes the gradient of another."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        shapes = [(16, 16), (24, 16), (16, 16), (24, 16), (16, 16), (16, 16), (64, 64), (64, 64)]
        super().__init__(nn.ModuleList(nn.Linear(*shape) for shape in shapes))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        pixels = batch[0].flatten(1)
        return torch.stack([(layer(pixels[:, : layer.in_features]) - 1).square().mean() for layer in self.net]).sum()

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:
        pass


class Spoil(Callback):
    """Sets an entry of the gradient of a layer, and so of its latent, once."""

    def __init__(self, layer: int, value: float) -> None:
        self.layer, self.value = layer, value

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        if trainer.global_step == 9:
            pl_module.net[self.layer].weight.grad[1, 3] = self.value


def outcome(module: Classifier, *callbacks: Callback) -> tuple[str, dict[str, Tensor]]:
    """The error that ends a fit, and the weights."""
    try:
        fit(module, *callbacks)
    except (ValueError, RuntimeError) as error:
        return str(error), module.state_dict()
    return "", module.state_dict()


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that differ; NaN equals NaN."""
    return [name for name in one if not torch.equal(one[name].nan_to_num(1e30), other[name].nan_to_num(1e30))]


@pytest.mark.parametrize("name", METHODS)
def test_layers_train_as_each_by_itself(name, monkeypatch):
    together = outcome(in_a_row(), *METHODS[name]())
    monkeypatch.setattr(blocks, "_LEAST", torch.inf)
    alone = outcome(in_a_row(), *METHODS[name]())
    assert together[0] == alone[0] == ""
    assert differing(together[1], alone[1]) == []


@resumes
@pytest.mark.parametrize("name", ["regrowth by taylor", "grids", "sharing", "sharing by gradients", "all"])
def test_a_run_of_layers_by_themselves_is_resumed_together(name, tmp_path, monkeypatch):
    together, alone = in_a_row(), in_a_row()
    with monkeypatch.context() as patched:
        patched.setattr(blocks, "_LEAST", torch.inf)
        fit(alone, *METHODS[name](), Save(tmp_path, [5, 11]))
    for step in (5, 11):
        fit(together, *METHODS[name](), ckpt_path=tmp_path / f"step={step}.ckpt")
        assert differing(together.state_dict(), alone.state_dict()) == []


@pytest.mark.parametrize(("layer", "value"), [(2, math.nan), (6, math.nan), (2, math.inf)])
@pytest.mark.parametrize("name", METHODS)
def test_weights_that_are_no_numbers_end_a_run_or_not_as_of_a_layer_by_itself(name, value, layer, monkeypatch):
    together = outcome(Beside(), *METHODS[name](), Spoil(layer, value))
    monkeypatch.setattr(blocks, "_LEAST", torch.inf)
    alone = outcome(Beside(), *METHODS[name](), Spoil(layer, value))
    assert together[0] == alone[0]
    assert together[0] or differing(together[1], alone[1]) == []  # an update that fails may have begun


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", APART)
def test_weights_that_are_no_numbers_do_not_change_other_layers(name, value):
    spoiled, whole = Beside(), Beside()
    outcome(spoiled, *METHODS[name](), Spoil(2, value))
    fit(whole, *METHODS[name]())
    changed = differing(spoiled.state_dict(), whole.state_dict())
    assert set(changed) <= {"net.2.weight", "net.2.bias"}
    assert "net.2.weight" in changed
