"""Channels left as zeros are removed after the run, and nothing else is."""

import pytest
import torch
from torch import nn

from lightning_compress import QATCallback, export, load_compressed, remove_zero_channels
from lightning_compress.channels import ChannelPruningCallback
from lightning_compress.channels.dependencies.walk import find_groups
from lightning_compress.quantization import PerChannel, PerGroup, PerTensor
from lightning_compress.schedules import Linear
from tests.support.nets import Mobile, Residual
from tests.support.promises import on_grids
from tests.support.runs import trainer
from tests.support.toys import Digits, build, fit

IMAGES = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
WORDS = torch.rand(5, 6, 16, generator=torch.Generator().manual_seed(0))


def masked(*others):
    module = build()
    pruning = ChannelPruningCallback(0.5, round_to=4, schedule=Linear(0.1, 0.5), every_n_steps=3, remove=False)
    fit(module, pruning, *others)
    return module.eval()


def size(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_zeros_left_by_a_run_are_removed(tmp_path):
    module = masked()
    before, wide = module(IMAGES), size(module)
    zero = int((module.net[3].weight.flatten(1) == 0).all(1).sum())
    assert zero > 0
    assert remove_zero_channels(module, IMAGES) >= zero
    assert len(module.net[3].weight) == 16 - zero
    assert size(module) < 0.7 * wide
    torch.testing.assert_close(module(IMAGES), before, rtol=1e-5, atol=1e-6)
    assert remove_zero_channels(module, IMAGES) == 0
    assert export(module, tmp_path / "m.onnx", IMAGES).exists()


def test_checkpoints_carry_the_new_shapes(tmp_path):
    module = masked()
    remove_zero_channels(module, IMAGES)
    run = trainer(max_epochs=1)
    run.strategy.connect(module)
    run.save_checkpoint(tmp_path / "small.ckpt")
    loaded = load_compressed(Digits, tmp_path / "small.ckpt").eval()
    assert torch.equal(loaded(IMAGES), module(IMAGES))


@pytest.mark.parametrize("granularity", [PerChannel(), PerTensor()])
def test_grids_of_quantized_weights_are_narrowed_too(tmp_path, granularity):
    module = masked(QATCallback(7, granularity=granularity))  # with 8 bits kernels without VNNI saturate
    before = module(IMAGES)
    assert remove_zero_channels(module, IMAGES) > 0
    assert on_grids(module)
    torch.testing.assert_close(module(IMAGES), before, rtol=1e-5, atol=1e-6)
    run = trainer(max_epochs=1)
    run.strategy.connect(module)
    run.save_checkpoint(tmp_path / "small.ckpt")
    loaded = load_compressed(Digits, tmp_path / "small.ckpt").eval()
    assert on_grids(loaded)
    assert torch.equal(loaded(IMAGES), module(IMAGES))
    assert export(module, tmp_path / "m.onnx", IMAGES).exists()


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (16, r"need removed channels to fill whole groups of weights, got others in 'net.9.weight' .*PerGroup"),
        (32, r"need a number of inputs that 32 divides .* got 'net.9.weight' with"),
    ],
)
def test_groups_of_weights_are_not_torn(size, message):
    module = masked(QATCallback(activation_bits=None, include=("net.9",), granularity=PerGroup(size)))
    wide = [parameter.shape for parameter in module.parameters()]
    with pytest.raises(ValueError, match=message):
        remove_zero_channels(module, IMAGES)
    assert [parameter.shape for parameter in module.parameters()] == wide


@pytest.mark.parametrize(("net", "example"), [(Residual(), IMAGES), (Mobile(), IMAGES)])
def test_a_model_without_zeros_is_left_as_it_is(net, example):
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert remove_zero_channels(net, example) == 0
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())


def test_zeros_in_one_layer_alone_stay():
    net = Residual()
    with torch.no_grad():
        net.conv1.weight[:4] = 0  # the consumers of these channels are not zero: a bias of the norm may pass
    assert remove_zero_channels(net, IMAGES) == 0


def test_one_channel_stays():
    net = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))
    with torch.no_grad():
        for parameter in (net[0].weight, net[0].bias, net[2].weight):
            parameter.zero_()
    assert remove_zero_channels(net, torch.rand(2, 8)) == 5
    assert net[0].out_features == 1


class Split(nn.Module):
    """Splits one layer's output in a way that torch-pruning fails on."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3), nn.Linear(8, 3)

    def forward(self, x):
        return self.last(self.first(x).mean((2, 3)))


def test_a_model_that_cannot_be_traced_names_the_layer(monkeypatch):
    from torch_pruning.dependency import index_mapping

    def fail(graph):
        node = graph.module2node[net.last]
        raise IndexError(f"list index out of range in {node.type}")

    net = Split()
    monkeypatch.setattr(index_mapping, "update_index_mapping", fail)
    with pytest.raises(ValueError, match=r"raises IndexError: .*, after layer 'last'"):
        find_groups(net, lambda model: [model(IMAGES)])
