import copy
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from lightning.pytorch import seed_everything
from torch import nn

from lightning_compress.deploy.checks import cpu_tensors
from lightning_compress.deploy.export import export
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.lowering.embeddings import QuantizedEmbedding
from lightning_compress.lowering.layers import QuantizedLayer, quantize_layer_
from lightning_compress.lowering.modules import lower
from lightning_compress.quantization import PerGroup, PerTensor, QATCallback, scales
from lightning_compress.quantization.activations.quantizers import quantizers_of
from lightning_compress.quantization.granularities import PerChannel
from lightning_compress.tying import tie
from tests.support.classifiers import Classifier, Conv, ResNet, fit, loader, trainer


def images(channels: int = 1) -> torch.Tensor:
    return torch.cat([x for x, _ in loader(channels=channels)])


@pytest.fixture(scope="module")
def trained() -> Classifier:
    seed_everything(0, verbose=False)
    module = Classifier(ResNet(width=16))
    fit(module, QATCallback(7), max_epochs=3)  # with 8 bits kernels without VNNI saturate
    return module.eval()


def close(got: torch.Tensor, want: torch.Tensor) -> None:
    """Sums in another order may move an activation to the next integer: few, and by little."""
    spread = want.max() - want.min()
    assert (got - want).abs().max() <= 0.02 * spread
    assert (got - want).abs().mean() <= 0.002 * spread
    assert (got.argmax(1) == want.argmax(1)).float().mean() >= 0.99


@torch.no_grad()
def test_lowered_computes_what_was_trained(trained):
    x, state = images(), copy.deepcopy(trained.state_dict())
    lowered = lower(trained, (x[:2],))
    close(lowered(x), trained(x))
    kinds = Counter(kind for module in lowered.modules() for kind in type(module).__mro__)
    assert (kinds[QuantizedLayer], kinds[nn.BatchNorm2d]) == (10, 0)
    assert all(torch.equal(value, trained.state_dict()[name]) for name, value in state.items())


@pytest.mark.parametrize("granularity", [PerTensor(), PerChannel(), PerGroup(16)])
@pytest.mark.parametrize("scale", [scales.absmax, scales.minmax])
@torch.no_grad()
def test_without_normalization_every_bit_is_the_same(scale, granularity):
    module = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)))
    fit(module, QATCallback(4, activation_bits=5, granularity=granularity, scale=scale))
    lowered, x = lower(module, (images()[:2],)), images()
    assert sum(isinstance(part, QuantizedLayer) for part in lowered.modules()) == 2
    assert torch.equal(lowered(x), module.eval()(x))


@torch.no_grad()
def test_folding_is_exact_for_any_gain():
    conv, norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4).eval()
    norm.weight.copy_(torch.tensor([1.5, -2.0, 0.0, -0.1]))
    norm.bias.uniform_(-1, 1)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    grid = scales.absmax(PerChannel().rows(conv.weight), 8)
    conv.weight.copy_(grid.project(conv.weight))
    x = torch.randn(2, 3, 8, 8)
    want = norm(conv(x))
    integers = quantize_layer_(conv, grid).integers
    codes = integers.codes.clone()
    assert integers.fold(norm)
    torch.testing.assert_close(conv(x), want, rtol=1e-5, atol=1e-5)
    assert torch.equal(integers.codes.abs()[[0, 1, 3]], codes.abs()[[0, 1, 3]])
    assert (integers.scale > 0).all()


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_export_writes_integers(trained, tmp_path, suffix):
    x = images()
    path = export(trained, tmp_path / f"model{suffix}", x[:4])
    if suffix == ".onnx":
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        logits = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
        operators = OnnxRuntime().operators(path)
        fused = {name: operators.fused[name] for name in ("QLinearConv", "QLinearAdd", "QGemm")}
        assert fused == {"QLinearConv": 9, "QLinearAdd": 3, "QGemm": 1}
        assert operators.floating == ()
    else:
        logits = torch.export.load(path).module()(x)
    with torch.no_grad():
        close(logits, trained(x))


class Shared(nn.Module):
    """The ReLU module is used twice, so that the first convolution's output cannot be quantized."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3)
        self.relu, self.pool, self.fc = nn.ReLU(), nn.AvgPool2d(2), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pool(self.relu(self.conv1(x)))
        return self.fc(self.relu(self.conv2(x)).flatten(1))


def test_layers_left_in_float_are_named(tmp_path):
    module = Classifier(Shared())
    fit(module, QATCallback())
    with pytest.warns(UserWarning, match=r"computes layers of model.onnx in float"):
        export(module, tmp_path / "model.onnx", images()[:2])


def test_what_was_not_trained_is_refused(trained):
    x = images()[:2]
    with pytest.raises(ValueError, match="need a module trained with QATCallback"):
        lower(Conv(), (x,))
    changed = copy.deepcopy(trained)
    changed.net.fc.weight.data.mul_(1.01)
    with pytest.raises(ValueError, match=r"got 'net.fc.weight' off its grid"):
        lower(changed, (x,))


class Words(nn.Module):
    """An embedding and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.fc = nn.Embedding(50, 8), nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.words((x.flatten(1) * 10).long() % 50).mean(1))


@pytest.mark.parametrize("scale", [scales.absmax, scales.minmax])
@pytest.mark.parametrize("granularity", [PerChannel(), PerTensor(), PerGroup(4)])
def test_embeddings_look_up_integers(scale, granularity, tmp_path):
    module = Classifier(Words())
    fit(module, QATCallback(8, activation_bits=None, scale=scale, granularity=granularity))
    x = images()[:8]
    lowered = lower(module, (x,))
    assert isinstance(lowered.net.words, QuantizedEmbedding)
    assert lowered.net.words.integers.codes.dtype == torch.int8
    with torch.no_grad():
        assert torch.equal(lowered(x), module.eval()(x))
    path = export(module, tmp_path / "m.onnx", x)
    stored = {tuple(tensor.dims): tensor.data_type for tensor in onnx.load(path).graph.initializer}
    assert stored[50, 8] == onnx.TensorProto.INT8


def test_the_exact_reference_adds_up_integers(trained):
    x = images()
    lowered, kept = lower(trained, (x,), exact=True), {}
    for name in ("net.fc", "net.blocks.1.conv1"):
        layer = lowered.get_submodule(name)
        layer.register_forward_hook(lambda layer, args, out, name=name: kept.update({name: (layer, args[0], out)}))
    logits = lowered(x)
    layer, read, out = kept["net.fc"]
    codes = np.rint(read.numpy().astype(np.float64) / layer.reads.scale).astype(np.int64)
    sums = codes @ layer.integers.codes.numpy().astype(np.int64).T
    unit = np.float32(layer.reads.scale) * layer.integers.scale.numpy()
    np.testing.assert_array_equal(out.numpy(), sums.astype(np.float32) * unit + layer.bias.numpy())
    layer, read, out = kept["net.blocks.1.conv1"]
    codes = torch.nn.functional.unfold((read.double() / layer.reads.scale).round(), 3, padding=1, stride=2).numpy()
    sums = layer.integers.codes.flatten(1).numpy().astype(np.int64) @ codes.astype(np.int64)
    unit = (np.float32(layer.reads.scale) * layer.integers.scale.numpy())[:, None]
    want = sums.astype(np.float32) * unit + layer.bias.numpy()[:, None]
    np.testing.assert_array_equal(out.flatten(2).numpy(), want)
    with torch.no_grad():
        close(logits, trained(x))


@torch.no_grad()
def test_onnx_runtime_computes_the_exact_reference(trained, tmp_path):
    x = images()
    path = export(trained, tmp_path / "model.onnx", x[:4])
    (logits,) = OnnxRuntime().load(path)([x])
    sums, biases = (lower(trained, (x[:2],), exact=True) for _ in range(2))
    for layer in biases.modules():
        if isinstance(layer, QuantizedLayer):
            layer.integers.round_bias(torch.tensor(layer.reads.scale))
            assert layer.integers.float_bias is None
    for got in (biases(x), logits):
        same = torch.isclose(got, sums(x), rtol=1e-6, atol=1e-6).all(1)
        assert same.float().mean() > 0.97  # a sum that lies between two integers may go to either
        close(got, sums(x))


class ReadTwice(nn.Module):
    """The output of a convolution is read by its normalization and by something else."""

    def __init__(self, other):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 10)
        self.other = other

    def forward(self, x):
        raw = self.conv(x)
        logits = self.fc(torch.relu(self.norm(raw)).mean((2, 3)))
        return {"logits": logits, "rest": self.other(raw)}


@pytest.mark.parametrize(
    "other", [lambda raw: raw, lambda raw: [raw], lambda raw: raw.chunk(2, 1)[0]], ids=["returned", "listed", "chunk"]
)
@torch.no_grad()
def test_normalization_is_not_folded_where_something_else_reads_what_it_takes(other):
    class Returns(Classifier):
        def training_step(self, batch, batch_idx):
            return nn.functional.cross_entropy(self(batch[0])["logits"], batch[1])

        validation_step = training_step

    module = Returns(ReadTwice(other))
    with torch.enable_grad():
        fit(module, QATCallback())
    x = images()
    got, want = lower(module, (x[:2],))(x), module.eval()(x)
    close(got["logits"], want["logits"])
    for one, two in zip(cpu_tensors(got["rest"]), cpu_tensors(want["rest"]), strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)


class Activated(nn.BatchNorm2d):
    """Normalizes, and applies an activation: the layer that many image models are built of."""

    def forward(self, x):
        return nn.functional.silu(super().forward(x))


class Shifted(nn.BatchNorm2d):
    """Normalizes something else than its input."""

    def forward(self, x):
        return super().forward(2 * x + 1)


@pytest.mark.filterwarnings("ignore:ONNX Runtime computes layers of m.onnx in float")  # no quantizer in Activated
@pytest.mark.parametrize("kind", [Activated, Shifted])
def test_a_normalization_that_does_more_is_not_folded(kind, tmp_path):
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, bias=False), kind(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)
    )
    module = Classifier(net)
    fit(module, QATCallback(7))  # with 8 bits kernels without VNNI saturate
    x = images()
    for suffix in (".onnx", ".pt2"):
        export(module.eval(), tmp_path / f"m{suffix}", x[:2])
    with torch.no_grad():
        close(lower(module, (x[:2],))(x), module(x))
        (logits,) = OnnxRuntime().load(tmp_path / "m.onnx")([x])
        close(logits, module(x))


class Tied(nn.Module):
    """Two linear layers that are one, and a head that is the embedding."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 16)
        self.first, self.second, self.head = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 10, bias=False)
        tie(self, {"second": "first"})
        self.head.weight = self.table.weight

    def forward(self, x):
        rows = self.table((x.flatten(1)[:, :4].abs() * 4).long() % 10).mean(1)
        return self.head(torch.relu(self.second(torch.relu(self.first(rows)))))


def test_tied_layers_compute_in_integers(tmp_path):
    module = Classifier(Tied())
    fit(module, QATCallback(7), max_epochs=1).save_checkpoint(tmp_path / "m.ckpt")
    trainer(QATCallback(7)).fit(module, loader(), loader(2), ckpt_path=tmp_path / "m.ckpt")
    inputs = {place.module for place in quantizers_of(module) if place.side == "input"}
    assert inputs == {"net.first", "net.second", "net.head"}
    path = export(module.eval(), tmp_path / "m.onnx", images()[:2])
    operators = OnnxRuntime().operators(path)
    assert (operators.layers, operators.floating) == (3, ())
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: images().numpy()})
    with torch.no_grad():
        close(torch.from_numpy(logits), module(images()))
