import copy
import io

import pytest
import torch
from torch import nn

from lightning_compress.channels.removal.hollow import Hollow, hollow_, refill_
from tests.support.gpt2 import Conv1D

LAYERS = {
    "of GPT-2": (Conv1D(5, 4), (2, 3, 4)),
    "linear": (nn.Linear(4, 5), (2, 3, 4)),
    "without bias": (nn.Linear(4, 5, bias=False), (2, 4)),
    "1-D": (nn.Conv1d(4, 5, 3, 2, padding=1), (2, 4, 9)),
    "2-D": (nn.Conv2d(4, 6, (3, 5), (2, 1), padding=(0, 4), dilation=(1, 2), groups=2), (2, 4, 9, 11)),
    "3-D": (nn.Conv3d(4, 5, 2, bias=False), (2, 4, 5, 5, 6)),
    "one example": (nn.Conv2d(4, 5, 3), (4, 6, 7)),
    "same": (nn.Conv2d(4, 5, 4, padding="same", dilation=2), (2, 4, 9, 8)),
    "valid": (nn.Conv2d(4, 5, 4, padding="valid"), (2, 4, 9, 8)),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("layer", "shape"), LAYERS.values(), ids=LAYERS.keys())
def test_it_gives_what_the_layer_gave_without_weights(layer, shape, training):
    layer = copy.deepcopy(layer).train(training)
    nn.init.zeros_(layer.weight)
    x = torch.randn(shape)
    expected = layer(x)
    hollow = Hollow(layer, biased=layer.bias is not None)
    torch.testing.assert_close(hollow(x), expected, rtol=0, atol=0)
    assert hollow.training == training
    assert [name for name, _ in hollow.named_parameters()] == (["bias"] if layer.bias is not None else [])


def test_it_gives_nothing_of_its_bias_where_that_goes_too():
    assert (Hollow(nn.Linear(3, 4), biased=False)(torch.ones(2, 3)) == torch.zeros(2, 4)).all()


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(4), nn.LayerNorm(5), nn.GroupNorm(2, 4), nn.PReLU(4)])
def test_a_normalization_lets_through_what_it_gets(layer):
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(Hollow(layer, biased=False)(x), x)


def test_what_the_layer_says_of_itself_stays_readable():
    hollow = Hollow(nn.Conv2d(3, 4, 5, stride=2), biased=True)
    assert (hollow.in_channels, hollow.kernel_size, hollow.stride) == (3, (5, 5), (2, 2))


def test_the_type_under_autocast_is_that_of_the_layer():
    layer = nn.Linear(3, 4)
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(torch.ones(2, 3)).dtype
        assert Hollow(layer, biased=True)(torch.ones(2, 3)).dtype == expected == torch.bfloat16


def test_hooks_and_other_names_go_along_there_and_back():
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared))
    seen = []
    shared.register_forward_hook(lambda *_: seen.append(1))
    hollow_(model, {"0": True})
    assert model[0] is model[2][0]
    model(torch.ones(1, 3))
    assert len(seen) == 2
    refill_(model, "0")
    assert model[0] is model[2][0] is shared
    assert torch.equal(model(torch.ones(1, 3)), torch.zeros(1, 3))
    assert len(seen) == 4


def test_copies_and_pickles_are_hollow_too():
    hollow = Hollow(nn.Conv2d(1, 2, 3, padding=1), biased=True)
    buffer = io.BytesIO()
    torch.save(hollow, buffer)
    buffer.seek(0)
    x = torch.ones(1, 1, 4, 4)
    for other in (copy.deepcopy(hollow), torch.load(buffer, weights_only=False)):
        assert torch.equal(other(x), hollow(x))


def test_it_compiles_and_exports():
    model = nn.Sequential(Hollow(nn.Conv2d(1, 2, 3), biased=True), nn.BatchNorm2d(2)).eval()
    x = torch.ones(2, 1, 6, 6)
    assert torch.equal(torch.compile(model, backend="eager", fullgraph=True)(x), model(x))
    assert torch.equal(torch.export.export(model, (x,)).module()(x), model(x))
