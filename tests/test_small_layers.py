"""Layers that are computed together train as each does by itself, bit for bit."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from lightning_compress import NM, BinarizationCallback, PruningCallback, QATCallback, WeightSharingCallback, blocks
from lightning_compress.pruning import criteria
from lightning_compress.pruning.patterns import Block
from lightning_compress.quantization import PerGroup, scales
from lightning_compress.schedules import Step
from lightning_compress.sharing import gradients
from tests.support.classifiers import Classifier, fit

METHODS = {
    "pruning": lambda: [PruningCallback(0.8, every_n_steps=2)],
    "pruning by taylor": lambda: [PruningCallback(0.8, criterion=criteria.taylor, every_n_steps=2)],
    "pruning by wanda": lambda: [PruningCallback(0.8, criterion=criteria.wanda, every_n_steps=2)],
    "pruning with a floor": lambda: [PruningCallback(0.9, floor=0.3, every_n_steps=2)],
    "pruning of layers": lambda: [PruningCallback(0.8, scope="layer", every_n_steps=2)],
    "2:4": lambda: [PruningCallback(pattern=NM(2, 4), every_n_steps=2)],
    "blocks": lambda: [PruningCallback(0.5, pattern=Block(4, 2), every_n_steps=2, exclude=["net.19.*"])],
    "grids": lambda: [QATCallback(4, activation_bits=None, scale=scales.mse, every_n_steps=2)],
    "groups": lambda: [QATCallback(4, activation_bits=None, granularity=PerGroup(8), scale=scales.minmax)],
    "binary": lambda: [BinarizationCallback(every_n_steps=2)],
    "sharing": lambda: [WeightSharingCallback(8, every_n_steps=2)],
    "sharing of all layers": lambda: [WeightSharingCallback(8, scope="global", every_n_steps=2)],
    "sharing by gradients": lambda: [WeightSharingCallback(8, gradient=gradients.mean, schedule=Step(0.3))],
    "all": lambda: [PruningCallback(0.7, every_n_steps=2), WeightSharingCallback(6, every_n_steps=2), QATCallback()],
}


def many_layers() -> Classifier:
    """Layers of one shape follow each other: of equal scores, those of earlier layers of a group are masked first."""
    torch.manual_seed(0)
    widths = [64, 16, 16, 16, 16, 16, 24, 24, 24, 24]
    layers = [part for sizes in pairwise(widths) for part in (nn.Linear(*sizes), nn.ReLU())]
    return Classifier(nn.Sequential(nn.Flatten(), *layers, nn.Linear(24, 10)))


@pytest.mark.parametrize("name", METHODS)
def test_layers_train_as_each_by_itself(name, monkeypatch):
    together = many_layers()
    fit(together, *METHODS[name]())
    monkeypatch.setattr(blocks, "_LEAST", torch.inf)
    alone = many_layers()
    fit(alone, *METHODS[name]())
    expected = alone.state_dict()
    for key, value in together.state_dict().items():
        assert torch.equal(value, expected[key]), key
