"""Quantized layers are in all else what they were: classes of their own, attributes, hooks, other parameters."""

import math

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_compress.deploy import export
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.deploy.writers.programs import Program
from lightning_compress.lowering.embeddings import QuantizedEmbedding
from lightning_compress.lowering.layers import QuantizedLayer
from lightning_compress.lowering.modules import lower, pad_single_channels
from lightning_compress.quantization import PerGroup, QATCallback, scales
from tests.support.classifiers import Classifier, fit, loader


class ScaledWords(nn.Embedding):
    """As BART has them."""

    scale = 4.0

    def forward(self, indices, offset=0):
        return super().forward(indices + offset) * self.scale


class ScaledLinear(nn.Linear):
    """With a name that integers have, too."""

    def __init__(self, *args):
        super().__init__(*args)
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return super().forward(x) * self.scale


class SameConv(nn.Conv2d):
    """As converted from TensorFlow; a normalization that is folded into it would find no bias."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, stride=self.stride)


class Subclasses(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = ScaledWords(52, 8)
        self.conv, self.norm = SameConv(1, 16, 2, stride=2, bias=False), nn.BatchNorm2d(16)
        self.hidden, self.hidden_norm = ScaledLinear(16 * 32 * 4, 16), nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        read = self.words((x.flatten(1) * 10).long() % 50, offset=1)
        y = torch.relu(self.norm(self.conv(read[:, None]))).flatten(1)
        assert y.shape[1] == 16 * 64 // self.conv.stride[0] * 8 // self.conv.stride[1]
        return self.head(input=torch.relu(self.hidden_norm(self.hidden(y))))


class TiedByHand(nn.Module):
    """A head that multiplies by the table of the embedding."""

    def __init__(self):
        super().__init__()
        self.words, self.hidden = nn.Embedding(50, 8), nn.Linear(8, 8)

    def forward(self, x):
        read = self.words((x.flatten(1) * 10).long() % 50).mean(1)
        return F.linear(torch.relu(self.hidden(read)), self.words.weight[:10])


def images() -> torch.Tensor:
    return torch.cat([x for x, _ in loader()])


def trained(net, callback) -> Classifier:
    module = Classifier(net, lr=0.01)
    fit(module, callback)
    return module.eval().requires_grad_(False)


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    """Within 1 % of the largest: ONNX Runtime may round what enters a product with packed weights."""
    torch.testing.assert_close(got, want, rtol=0, atol=0.01 * float(want.abs().max()))


pytestmark = pytest.mark.filterwarnings("ignore:no quantizer reaches the inputs", "ignore:ONNX Runtime computes")

KINDS = [QATCallback(scale=scales.minmax), QATCallback(4, activation_bits=None, granularity=PerGroup(4))]


@pytest.mark.parametrize("callback", KINDS, ids=["integers", "groups"])
@pytest.mark.parametrize("net", [Subclasses, TiedByHand])
def test_layers_of_a_class_of_their_own_compute_what_was_trained(net, callback, tmp_path):
    module, x = trained(net(), callback), images()
    lowered = lower(module, (x[:2],))
    torch.testing.assert_close(lowered(x), module(x), rtol=1e-4, atol=1e-5)
    kinds = [isinstance(layer, QuantizedLayer | QuantizedEmbedding) for layer in lowered.modules()]
    assert sum(kinds) == (4 if net is Subclasses else 2)
    program = torch.export.load(export(module, tmp_path / "m.pt2", x[:2]))
    torch.testing.assert_close(program.module()(x), module(x), rtol=1e-4, atol=1e-5)
    (logits,) = OnnxRuntime().load(export(module, tmp_path / "m.onnx", x[:2]))([x])
    close(logits, module(x))


def test_what_a_layer_does_besides_its_operation_is_not_folded_or_added_up_in_integers():
    module, x = trained(Subclasses(), QATCallback()), images()
    lowered = lower(module, (x[:2],), exact=True)
    torch.testing.assert_close(lowered(x), module(x), rtol=1e-4, atol=1e-5)
    assert isinstance(lowered.net.norm, nn.BatchNorm2d)
    assert isinstance(lowered.net.hidden_norm, nn.BatchNorm1d)


class PaddedConv(nn.Conv2d):
    """With a bias of its own making."""

    def forward(self, x):
        return F.conv2d(F.pad(x, (0, 1, 0, 1)), self.weight, 2 * self.bias)


@pytest.mark.parametrize("exact", [False, True])
def test_what_a_layer_does_to_its_input_and_bias_is_kept(exact):
    net = nn.Sequential(PaddedConv(1, 4, 2), nn.ReLU(), PaddedConv(4, 4, 2), nn.BatchNorm2d(4), nn.Flatten())
    module, x = trained(net.append(nn.Linear(256, 10)), QATCallback()), images()
    torch.testing.assert_close(lower(module, (x[:2],), exact=exact)(x), module(x), rtol=1e-4, atol=1e-5)


def test_hooks_of_a_layer_stay():
    module, x = trained(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), QATCallback()), images()
    module.net[1].register_forward_hook(lambda layer, args, output: 2 * output)
    torch.testing.assert_close(lower(module, (x[:2],))(x), module(x))


class Others(nn.Module):
    """Weights that no integer kernel reads."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up = nn.ConvTranspose1d(8, 4, 2, 2)
        self.table = nn.Parameter(torch.randn(64, 10) / 8)

    def forward(self, x):
        x = x.flatten(1, 2)
        read = x + self.attention(x, x, x)[0]
        return self.up(read.transpose(1, 2)).flatten(1) @ self.table


@pytest.mark.parametrize(
    "callback",
    [
        QATCallback(8, activation_bits=None, include=("*", "*table")),
        QATCallback(4, activation_bits=None, granularity=PerGroup(2), include=("*", "*table")),
    ],
    ids=["integers", "groups"],
)
def test_weights_of_other_modules_are_stored_in_integers(callback, tmp_path):
    module, x = trained(Others(), callback), images()
    path = export(module, tmp_path / "m.onnx", x[:2])
    (logits,) = OnnxRuntime().load(path)([x])
    close(logits, module(x))
    stored = onnx.load(path).graph.initializer
    integers = [math.prod(t.dims) for t in stored if t.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.INT4)]
    assert {weight.numel() for weight in module.parameters() if weight.ndim > 1} <= set(integers)


def test_compilers_see_integer_kernels_in_layers_alone(tmp_path):
    """They took a transposed convolution of integers for another one."""
    module, x = trained(Others(), QATCallback(8, activation_bits=None)), images()
    with pytest.warns(UserWarning, match="needs operators that torch alone does not have"):
        path = export(module, tmp_path / "m.pt2", x[:2], writer=Program(fusible=True))
    program = torch.export.load(path)
    explicit = {str(node.args[0]) for node in program.graph.nodes if "dequantize_per_channel" in str(node.target)}
    assert len(explicit) == 1  # the attention's output projection
    assert sum(tensor.dtype == torch.int8 for tensor in program.state_dict.values()) == 3


def test_groups_of_a_convolution_are_stored_in_four_bits(tmp_path):
    net = nn.Sequential(nn.Conv2d(1, 9, 3), nn.ReLU(), nn.Conv2d(9, 9, 3), nn.Flatten(), nn.Linear(144, 10))
    module, x = trained(net, QATCallback(4, activation_bits=None, granularity=PerGroup(9))), images()
    path = export(module, tmp_path / "m.onnx", x[:2])
    stored = {tuple(tensor.dims): tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert stored[81, 9] == onnx.TensorProto.INT4
    (logits,) = OnnxRuntime().load(path)([x])
    close(logits, module(x))


def test_groups_of_a_convolution_of_one_channel_are_compiled_as_they_are():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    module, x = trained(net, QATCallback(8, activation_bits=8, granularity=PerGroup(9))), images()
    lowered = lower(module, (x[:2],))
    pad_single_channels(lowered)
    torch.testing.assert_close(lowered(x), module(x))
