"""Quantizers of activations sit where they sit in the merged model."""

import copy

import pytest
import torch
from torch import nn

from lightning_compress import QATCallback, export
from lightning_compress.adapters import merge
from lightning_compress.adapters.views import plain_view
from lightning_compress.quantization.activations.quantizers import quantizers_of
from tests.support.toys import Adapted, Added, Digits, build, digits, fit


@pytest.fixture(scope="module")
def quantized():
    module = build(kind=Adapted)
    fit(module, QATCallback(every_n_steps=3))
    return module.eval()


def test_a_view_has_the_parameters_and_the_names_of_the_merged_model():
    module = build(kind=Adapted)
    view = plain_view(module)
    assert type(view) is Adapted
    assert [name for name, _ in view.named_parameters()] == [name for name, _ in Digits().named_parameters()]
    assert view.net[3] is module.net[3].base
    assert isinstance(module.net[3], Added)  # the module itself is as it was


def test_quantizers_sit_where_they_sit_without_adapters(quantized):
    plain = build()
    fit(plain, QATCallback(every_n_steps=3))
    assert quantizers_of(quantized).keys() == quantizers_of(plain).keys()


def test_the_merged_model_rounds_as_the_trained_one(quantized, tmp_path):
    """But for activations near the middle of two integers: a sum of two products is rounded differently."""
    merged, images = merge(copy.deepcopy(quantized)), digits()[0][1400:]
    assert quantizers_of(merged).keys() == quantizers_of(quantized).keys()
    with torch.no_grad():
        expected, found = quantized(images), merged(images)
    assert (found - expected).abs().max() < 0.02 * expected.abs().max()
    assert (found - expected).abs().mean() < 1e-4 * expected.abs().max()
    export(quantized, tmp_path / "m.lcz")


def test_hooks_of_the_layer_stay_with_its_weight():
    layer, seen = Added(nn.Linear(3, 2)), []
    net = nn.Sequential(layer)
    layer.register_forward_hook(lambda module, args, output: seen.append(output))
    merge(net)(torch.ones(1, 3))
    assert len(seen) == 1
