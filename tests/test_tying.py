"""Tied layers: one tensor under two names, trained, checkpointed and stored once."""

import lightning as L
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lightning_compress import PruningCallback
from lightning_compress.archive import load_archive, save_archive
from lightning_compress.schedules import Constant
from lightning_compress.sharing import WeightSharingCallback
from lightning_compress.tying import tie
from tests.support.toys import Digits, build, fit


class Deep(Digits):
    """Digits with three equal hidden blocks, which may be tied."""

    def __init__(self, *args, ties=(), **options):
        super().__init__(*args, **options)
        blocks = [nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()) for _ in range(3)]
        self.net = nn.Sequential(nn.Flatten(), *blocks, nn.Linear(64, 10))
        if ties:
            tie(self, dict(ties))


TIES = (("net.2", "net.1"), ("net.3", "net.2"))


def tied():
    L.seed_everything(0, verbose=False)
    return Deep(ties=TIES)


def test_tied_layers_are_one():
    module = tied()
    for key in ("0.weight", "0.bias", "1.weight", "1.bias"):
        first = module.get_parameter(f"net.1.{key}")
        assert module.get_parameter(f"net.2.{key}") is first
        assert module.get_parameter(f"net.3.{key}") is first
    assert module.get_buffer("net.3.1.running_mean") is module.get_buffer("net.1.1.running_mean")
    assert sum(p.numel() for p in module.parameters()) == 64 * 64 + 3 * 64 + 650


def test_the_gradient_is_the_sum_over_the_places():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    tie(net, {"2": "0"})
    inputs, weight, bias = torch.randn(5, 4), net[0].weight, net[0].bias
    net(inputs).square().sum().backward()
    one, two = (weight.detach().clone().requires_grad_() for _ in range(2))
    F.linear(F.linear(inputs, one, bias).tanh(), two, bias).square().sum().backward()
    torch.testing.assert_close(weight.grad, one.grad + two.grad)


@pytest.mark.parametrize(
    "method", [lambda: PruningCallback(0.8, schedule=Constant()), lambda: WeightSharingCallback(8, schedule=Constant())]
)
def test_trained_under_a_method_checkpointed_for_a_plain_model_and_stored_once(method, tmp_path):
    module = tied()
    run = fit(module, method())
    run.save_checkpoint(tmp_path / "tied.ckpt")
    assert module.get_parameter("net.3.0.weight") is module.get_parameter("net.1.0.weight")
    state = torch.load(tmp_path / "tied.ckpt", weights_only=True)["state_dict"]
    plain = Deep()
    plain.load_state_dict(state, strict=True)
    inputs = torch.randn(7, 1, 8, 8)
    assert torch.equal(plain.eval()(inputs), module.eval()(inputs))
    untied = build(kind=Deep)
    fit(untied, method())
    sizes = []
    for model in (module, untied):
        save_archive(model.state_dict(), tmp_path / "m.lcz")
        sizes.append((tmp_path / "m.lcz").stat().st_size)
    assert sizes[0] < 0.6 * sizes[1]
    loaded = load_archive(tmp_path / "m.lcz")
    assert loaded.keys() == state.keys()


@pytest.mark.parametrize(
    ("ties", "message"),
    [
        ({"net.9": "net.1"}, "need names of layers, got 'net.9'; there are: net, net\\.\\* \\(5\\)"),
        ({"net.2": "nut"}, "need names of layers, got 'nut'"),
        ({"": "net.1"}, "need names of layers, got ''"),
        ({"net.1": "net.1"}, "got a circle through 'net.1'"),
        ({"net.1": "net.2", "net.2": "net.1"}, "got a circle"),
        ({"net.1": "net.2", "net.2": "net.3", "net.3": "net.2"}, "got a circle"),
        ({"net.1": "net"}, "need two layers of which none contains the other, got 'net.1' and 'net'"),
        (
            {"net.4": "net.1.0"},
            r"to tie 'net.4' to 'net.1.0', got 'bias' as torch.float32 \(10,\) and torch.float32 \(64,\)",
        ),
        ({"net.1.0": "net.1.1"}, "got 'num_batches_tracked' as none and torch.int64"),
    ],
)
def test_refuses_what_cannot_be_tied_and_leaves_the_model(ties, message):
    module = Deep()
    before = {name: id(p) for name, p in module.named_parameters()}
    with pytest.raises(ValueError, match=message):
        tie(module, {"net.3": "net.2"} | ties if "net.3" not in ties else ties)
    assert {name: id(p) for name, p in module.named_parameters()} == before
