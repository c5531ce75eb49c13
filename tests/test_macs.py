import pytest
import torch
from torch import nn

from lightning_compress.macs import count_macs
from lightning_compress.timing import measure_latencies


@pytest.mark.parametrize(
    ("net", "shape", "expected"),
    [
        (nn.Linear(30, 20), (1, 30), 30 * 20),
        (nn.Linear(30, 20), (5, 7, 30), 35 * 30 * 20),
        (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 10, 10), 2 * 100 * 8 * 3 * 9),
        (nn.Conv2d(8, 8, 3, groups=8, stride=2), (1, 8, 9, 9), 16 * 8 * 9),
        (nn.Conv1d(4, 6, 5), (1, 4, 12), 8 * 6 * 4 * 5),
        (nn.LSTM(4, 8), (5, 1, 4), 5 * 4 * 8 * (4 + 8)),
        (nn.GRU(4, 8, batch_first=True), (2, 5, 4), 2 * 5 * 3 * 8 * (4 + 8)),
        # projections and feed-forward of 10 tokens; scores and values of 2 sequences, 5 * 5 * 8 each
        (nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8), 10 * (256 + 256) + 2 * 2 * 25 * 8),
        (nn.ReLU(), (3,), 0),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else None,
)
def test_macs_by_hand(net, shape, expected):
    assert count_macs(net, torch.randn(shape)).total == expected


def test_macs_of_layers_add_up():
    inner = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    macs = count_macs(nn.Sequential(inner, nn.Linear(2, 3)), torch.randn(1, 4))
    assert macs.layers == {"0.0": 32, "0.2": 16, "1": 6}
    assert macs.total == 54
    assert macs.inputs == "1 x 4"


def test_modules_in_a_list_count_for_themselves():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4)) for _ in range(11)])

        def forward(self, x):
            for block in self.blocks:
                x = block(x * self.scale)
            return x

    macs = count_macs(Listed(), torch.randn(1, 4))
    assert macs.layers == {f"blocks.{number}.0": 16 for number in range(11)}


def test_zeros_are_multiplied_like_other_numbers():
    layer = nn.Linear(4, 4)
    nn.init.zeros_(layer.weight)
    assert count_macs(layer, torch.ones(1, 4)).total == 16


class Sum(nn.Module):
    def forward(self, one, two):
        return one @ two


@pytest.mark.parametrize("kind", [tuple, lambda pair: dict(zip(("one", "two"), pair, strict=True))])
def test_arguments(kind):
    macs = count_macs(Sum(), kind((torch.ones(2, 3), torch.ones(3, 4))))
    assert (macs.total, macs.inputs) == (24, "2 x 3, 3 x 4")


@pytest.mark.parametrize(
    "look", [lambda net, x: count_macs(net, x), lambda net, x: measure_latencies([net], x)], ids=["macs", "latency"]
)
def test_a_look_leaves_no_trace(look):
    net = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    net[3].eval()
    backends = (torch.backends.mkldnn, torch.backends.cudnn)
    settings = [backend.enabled for backend in backends], torch.backends.mha.get_fastpath_enabled()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    modes, random = [part.training for part in net.modules()], torch.get_rng_state()
    look(net, torch.randn(8, 4, generator=torch.Generator().manual_seed(0)))
    assert all(torch.equal(tensor, state[name]) for name, tensor in net.state_dict().items())
    assert [part.training for part in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert all(p.grad is None for p in net.parameters())
    assert ([backend.enabled for backend in backends], torch.backends.mha.get_fastpath_enabled()) == settings


def test_a_failure_leaves_no_trace_either():
    net = nn.Linear(4, 4)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        count_macs(net, torch.ones(1, 3))
    assert net.training
    assert torch.backends.mkldnn.enabled


def test_a_module_that_returns_a_view_of_its_parameter_is_counted():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.values = nn.Parameter(torch.ones(4))
            self.frozen = nn.Parameter(torch.ones(4), requires_grad=False)

        def forward(self, x):
            return self.values.view(1, -1).expand(len(x), -1)

    net = nn.Sequential(Constant(), nn.Linear(4, 3))
    assert count_macs(net, torch.ones(2, 4)).total == 24
    assert [p.requires_grad for p in net.parameters()] == [True, False, True, True]
