"""Weights: those of integer layers stay codes, all others become the constants that they are."""

import pytest
import torch
from torch import nn

from lightning_compress.deploy.graph_passes import rewritten
from lightning_compress.deploy.graph_passes.weights import (
    float_layers,
    fold_constants,
    round_weights,
    unrounded_ends,
    widen_codes,
)
from lightning_compress.deploy.runtimes.silence import hushed
from tests.support.rounded import OPS, after, counts, rounded

X = 4 * torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


class Layer(nn.Module):
    """A linear layer whose weight is codes."""

    def __init__(self, zero_point: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("codes", torch.randint(-7, 8, (8, 8), generator=generator, dtype=torch.int8))
        self.register_buffer("scale", torch.rand(8, generator=generator))
        self.register_buffer("zero_point", torch.full((8,), zero_point))

    def forward(self, x):
        weight = OPS.dequantize_per_channel(self.codes, self.scale, self.zero_point, 0, -7, 7, torch.int8)
        return torch.nn.functional.linear(x, weight)


class Net(nn.Module):
    """Integer layers with and without a ReLU, and three that cannot be integer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.shifted, self.last = Layer(), Layer(), Layer(3), Layer()
        self.plain = nn.Linear(8, 8)

    def forward(self, x):
        x = rounded(self.first(rounded(x)))
        x = rounded(torch.relu(self.second(x)))
        return self.last(rounded(self.plain(rounded(self.shifted(x)))))


def test_layers_that_stay_float_are_named():
    _, result = after(Net(), [], X)
    assert float_layers(result) == {
        "shifted": "their weights have zero points other than 0",
        "plain": "their weights are not quantized with one scale for each output",
        "last": "nothing quantizes their outputs",
    }


class Attending(nn.Module):
    """Kinds of layers without integer kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.lstm = nn.GRU(8, 8, batch_first=True), nn.LSTM(8, 8, batch_first=True)
        self.rnn = nn.RNN(8, 8, batch_first=True, nonlinearity="relu")
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.weight = nn.Parameter(torch.eye(8))

    def forward(self, x):
        for layer in (self.gru, self.lstm, self.rnn):
            x = layer(x)[0]
        x = self.attention(x, x, x, need_weights=False)[0] @ self.weight
        return x @ x.transpose(1, 2)


def test_recurrent_layers_and_products_of_activations_are_named():
    names = ("gru", "lstm", "rnn", "attention", "forward")
    with hushed():
        _, result = after(Attending().eval(), [], X[None])
    found = float_layers(result)
    layers = [found[name] for name in names]
    recurrent, products = "recurrent layers have no integer kernel", "products of two activations"
    assert layers[:3] == [recurrent] * 3
    assert layers[4].startswith(products)
    assert set(found) == set(names)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda net, x: x @ net.plain.weight.t(), "their weights are not quantized"),
        (lambda net, x: torch.nn.functional.scaled_dot_product_attention(x, x, x), "products of two activations"),
        (lambda net, x: x @ rounded(net.plain(x)), "products of two activations"),
    ],
)
def test_a_product_is_named_with_its_reason(function, reason):
    class Product(Net):
        def forward(self, x):
            return function(self, x[None, None])

    _, result = after(Product(), [], torch.ones(8, 8))
    assert float_layers(result)["forward"].startswith(reason)


def test_a_layer_of_forward_itself_is_called_so():
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(8, 8))

        def forward(self, x):
            return nn.functional.linear(x, self.weight)

    _, result = after(Functional(), [], X)
    assert list(float_layers(result)) == ["forward"]


def test_their_weights_become_float_and_the_others_stay_codes():
    before, result = after(Net(), [fold_constants], X)
    assert counts(before)["W"] == 4
    assert counts(result)["W"] == 2
    kept = {name for name, _ in result.named_buffers()}
    assert "folded_dequantize_per_channel_2" in kept
    assert list(float_layers(result)) == ["shifted", "plain", "last"]


def test_a_weight_that_is_computed_is_computed_once():
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))

        def forward(self, x):
            return x @ (self.weight / self.weight.norm(dim=1, keepdim=True)).t()

    before, result = after(Normed(), [fold_constants], X)
    assert set(counts(before)) > {"div", "matmul"}
    assert counts(result) == {"matmul": 1}


def test_codes_of_few_bits_are_int8():
    _, result = after(Net(), [widen_codes], X)
    ranges = [node.args[4:6] for node in result.graph.nodes if "dequantize_per_channel" in str(node.target)]
    assert ranges == [(-128, 127)] * 4


def test_codes_are_rounded_from_floats():
    before, result = after(Net(), [widen_codes, fold_constants, round_weights], X)
    assert counts(before)["W"] == 4
    assert counts(result)["W"] == counts(result)["quantize_per_channel"] == 2
    sources = [node.args[0] for node in result.graph.nodes if "quantize_per_channel.default" in str(node.target)]
    values = [source for source in sources if source.op == "get_attr"]
    assert [result.get_buffer(value.target).dtype for value in values] == [torch.float32] * 2


@pytest.mark.parametrize(
    ("function", "ends"),
    [
        (lambda net, x: net.first(rounded(x)), ("first",)),
        (lambda net, x: net.second(rounded(torch.relu(net.first(rounded(x))))), ("second",)),
        (lambda net, x: rounded(net.first(rounded(x)).clamp(0, 6)), ()),
        (lambda net, x: rounded(net.second(rounded(net.first(rounded(x)).sigmoid()))), ()),  # the last is rounded
        (lambda net, x: (net.first(rounded(x)), rounded(net.second(rounded(x)))), ()),
        (lambda net, x: (net.first(rounded(x)), net.second(rounded(x))), ("first", "second")),
        (lambda net, x: net.first(x), ()),  # float inputs
    ],
)
def test_the_last_layers_without_rounding_are_named(function, ends):
    class Ending(Net):
        def forward(self, x):
            return function(self, x)

    assert unrounded_ends(rewritten(torch.export.export(Ending(), (X,)))) == ends
