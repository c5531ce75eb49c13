"""Zeros and shared values as one projection."""

import numpy as np
import torch
from torch import nn

from lightning_compress.search.budget.choice.composition import Composition
from lightning_compress.targets import select


def test_gradients_grow_once_by_the_fourth_root_of_the_density():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(32, 16, bias=False), nn.Linear(16, 8, bias=False))
    with torch.no_grad():
        module[1].weight.mul_(3)  # it keeps more of its weights
    targets = {target.name: target for target in select(module).targets}
    weights = {name: target.parameter.detach() for name, target in targets.items()}
    composition = Composition(targets)
    composition.prune(0.75)
    composition.strengthen(1.0, 1.0)
    pruned = composition.pruned(weights)
    gradients = {name: torch.ones_like(weight) for name, weight in weights.items()}
    composition.backward_(gradients, weights)
    kept = {name: weight.numpy() != 0 for name, weight in pruned.items()}
    assert kept["0.weight"].mean() < 0.2 < 0.5 < kept["1.weight"].mean()
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient.numpy(), kept[name] * kept[name].mean() ** -0.25, rtol=1e-6)
