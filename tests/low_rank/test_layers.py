"""Layers in two compute what they computed whole, and become whole again."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_compress.carried import attach_structure
from lightning_compress.low_rank import Factorized, split_low_rank
from lightning_compress.low_rank.factorization import factors
from lightning_compress.low_rank.layers import as_matrix, merge_, obstacle, split_
from lightning_compress.low_rank.records import LOW_RANK, conform_, record
from lightning_compress.schemas import RecordError
from tests.support.gpt2 import Conv1D


def of_rank(layer, rank, transposed=False):
    matrix = as_matrix(layer.weight.detach(), transposed)
    left, right = factors(matrix, rank)
    low = left @ right
    layer.weight.data = low.T.contiguous() if transposed else low.view_as(layer.weight)
    return left, right


LAYERS = {
    "linear": (lambda: nn.Linear(12, 10), (3, 12)),
    "linear without bias": (lambda: nn.Linear(12, 10, bias=False), (2, 5, 12)),
    "Conv1D": (lambda: Conv1D(10, 12), (2, 5, 12)),
    "convolution 1d": (lambda: nn.Conv1d(6, 10, 5, stride=2, padding=2), (2, 6, 20)),
    "convolution": (lambda: nn.Conv2d(6, 10, 3, padding=1), (2, 6, 9, 8)),
    "strided, dilated, no bias": (lambda: nn.Conv2d(6, 10, (3, 2), 2, (2, 1), (2, 1), bias=False), (2, 6, 9, 8)),
    "same, reflected": (lambda: nn.Conv2d(6, 10, 3, padding="same", padding_mode="reflect"), (2, 6, 9, 8)),
    "pointwise": (lambda: nn.Conv2d(20, 10, 1), (2, 20, 4, 4)),
    "convolution 3d": (lambda: nn.Conv3d(4, 6, 3, padding=1), (1, 4, 5, 4, 3)),
}
every_layer = pytest.mark.parametrize(("build", "shape"), LAYERS.values(), ids=LAYERS.keys())


def built(build):
    torch.manual_seed(0)
    layer = build().double()
    return layer, of_rank(layer, 3, transposed=isinstance(layer, Conv1D))


@every_layer
def test_the_outputs_are_those_of_the_whole_layer(build, shape):
    layer, pair = built(build)
    x = torch.randn(shape, dtype=torch.float64)
    expected, count = layer(x), sum(p.numel() for p in layer.parameters())
    split_(layer, *pair)
    assert type(layer) is Factorized
    torch.testing.assert_close(layer(x), expected)
    assert sum(p.numel() for p in layer.parameters()) < count
    assert layer.rank == 3


@every_layer
def test_the_weight_can_be_read_and_the_layer_made_whole_again(build, shape):
    layer, pair = built(build)
    x = torch.randn(shape, dtype=torch.float64)
    whole = copy.deepcopy(layer)
    split_(layer, *pair)
    torch.testing.assert_close(layer.weight, whole.weight)
    assert (layer.bias is None) == (whole.bias is None)
    merge_(layer)
    assert type(layer) is type(whole)
    assert layer.state_dict().keys() == whole.state_dict().keys()
    torch.testing.assert_close(layer(x), whole(x))
    assert repr(layer) == repr(whole)


def test_a_split_layer_keeps_hooks_identity_and_mode():
    net = nn.Sequential(nn.Linear(12, 10), nn.ReLU()).eval()
    layer, seen = net[0], []
    layer.register_forward_pre_hook(lambda module, args: seen.append("before"))
    handle = layer.register_forward_hook(lambda module, args, output: seen.append("after"))
    bias = layer.bias
    split_(layer, *of_rank(layer, 2))
    net(torch.zeros(1, 12))
    assert seen == ["before", "after"]
    assert net[0] is layer
    assert layer.second.bias is bias
    assert not any(part.training for part in layer.modules())
    handle.remove()
    assert list(net.state_dict()) == ["0.first.weight", "0.second.weight", "0.second.bias"]
    assert "Linear of rank 2" in repr(net)


def test_a_split_layer_is_copied_and_pickled():
    layer = nn.Linear(12, 10)
    split_(layer, *of_rank(layer, 2))
    x = torch.randn(2, 12)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(copied(x), layer(x))
        merge_(copied)
        assert type(copied) is nn.Linear


def test_splitting_takes_no_random_numbers_and_keeps_what_is_frozen():
    layer = nn.Conv2d(6, 10, 3)
    layer.weight.requires_grad_(False)
    pair = of_rank(layer, 2)
    torch.manual_seed(0)
    split_(layer, *pair)
    merge_(layer)
    after = torch.rand(3)
    torch.manual_seed(0)
    assert torch.equal(after, torch.rand(3))
    assert not layer.weight.requires_grad
    assert layer.bias.requires_grad


def test_layers_that_cannot_be_split():
    class Scaled(nn.Linear):
        pass

    assert obstacle(nn.Conv2d(4, 4, 3, groups=2)) == "a convolution in groups"
    others = (nn.ConvTranspose2d(4, 4, 3), nn.Embedding(4, 4), Scaled(4, 4), nn.MultiheadAttention(4, 1).out_proj)
    assert {obstacle(layer) for layer in others} == {"neither a linear layer nor a convolution"}


def test_code_that_reads_the_weight_goes_on():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    x = torch.randn(2, 4, 16)
    for part in (layer.linear1, layer.linear2):
        of_rank(part, 4)
    expected = layer(x)
    assert split_low_rank(layer) == 2
    torch.testing.assert_close(layer(x), expected)


class TestSplitLowRank:
    def test_layers_of_low_rank_are_split_and_others_are_not(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(12, 10), nn.Linear(10, 12), nn.Linear(12, 1), Conv1D(20, 1))
        of_rank(net[0], 3)
        x = torch.randn(4, 12)
        expected = net[:3](x)
        assert split_low_rank(net) == 1
        assert net[0].rank == 3
        assert type(net[1]) is nn.Linear
        torch.testing.assert_close(net[:3](x), expected)
        assert split_low_rank(net) == 0

    def test_a_weight_of_zeros_has_rank_one(self):
        net = nn.Sequential(nn.Linear(12, 10))
        nn.init.zeros_(net[0].weight)
        assert split_low_rank(net) == 1
        assert net[0].rank == 1
        assert not net(torch.ones(1, 12)).isnan().any()

    def test_tied_weights_stay_tied(self):
        net = nn.Sequential(nn.Linear(12, 12), nn.Linear(12, 12))
        net[1].weight = net[0].weight
        of_rank(net[0], 2)
        assert split_low_rank(net) == 0

    def test_half_precision(self):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(40, 30))
        of_rank(net[0], 3)
        net.bfloat16()
        assert split_low_rank(net) == 1
        assert net[0].rank == 3
        assert net[0].first.weight.dtype == torch.bfloat16


class TestRecords:
    def test_there_and_back(self):
        def build():
            torch.manual_seed(1)
            return nn.Sequential(nn.Linear(12, 10), nn.Conv2d(6, 10, 3))

        split, whole = build(), build()
        for layer, rank in zip(split, (2, 4), strict=True):
            split_(layer, *of_rank(layer, rank))
        fresh = build()
        for other in (split, split, whole, whole, split):
            conform_(fresh, record(other))
            fresh.load_state_dict(other.state_dict())
            assert repr(fresh) == repr(other)

    @pytest.mark.parametrize(
        ("name", "sizes"),
        [
            ("1", [4, 2, 12]),
            ("nowhere", [4, 2, 12]),
            ("0", [4, 2]),
            ("0", [10, 0, 12]),
            ("0", "10, 2"),
            ("2", [10, 2, 55]),
        ],
    )
    def test_a_foreign_record_is_refused(self, name, sizes):
        net = nn.Sequential(nn.Linear(12, 10), nn.ReLU(), nn.Conv2d(6, 10, 3))
        checkpoint = {"compression_structures": {LOW_RANK.key: {"split": {name: sizes}}}}
        with pytest.raises(RecordError, match=rf"need low_rank\.split\['{name}'\].* as .*, got"):
            attach_structure(net, LOW_RANK, checkpoint)
