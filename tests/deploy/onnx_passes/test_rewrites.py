import onnx
import onnxruntime
import pytest
import torch
from lightning.pytorch import seed_everything
from onnxscript import ir
from torch import nn

from lightning_compress.deploy import export
from lightning_compress.deploy.onnx_passes.rewrites import fill_channels, pool_means
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.lowering.modules import lower
from lightning_compress.quantization import QATCallback, scales
from lightning_compress.schedules import Constant
from tests.support.classifiers import Classifier, loader, trainer


def quantized(net, channels=1, scale=scales.absmax):
    module = Classifier(nn.Sequential(*net, nn.Flatten(), nn.LazyLinear(10)))
    with torch.no_grad():
        module(next(iter(loader(channels=channels)))[0])
    seed_everything(0, verbose=False)
    run = trainer(QATCallback(7, scale=scale, schedule=Constant()))  # with 8 bits kernels without VNNI saturate
    run.fit(module, loader(channels=channels), loader(2, channels=channels))
    return module


def run(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


@pytest.mark.parametrize(("channels", "dimensions"), [(3, 1), (1, 2)])
def test_convolutions_of_few_channels_read_four_and_give_the_same(channels, dimensions, tmp_path, monkeypatch):
    conv = nn.Conv1d if dimensions == 1 else nn.Conv2d
    images = next(iter(loader(channels=channels)))[0]
    flat = [nn.Flatten(2)] if dimensions == 1 else []
    module = quantized([*flat, conv(channels, 16, 3, 2, 1), nn.ReLU(), conv(16, 4, 3), nn.ReLU()], channels)
    filled = export(module, tmp_path / "filled.onnx", images)
    monkeypatch.setattr("lightning_compress.deploy.writers.onnx.fill_channels", lambda model: 0)
    plain = export(module, tmp_path / "plain.onnx", images)
    assert weights(plain) == [(16, channels, *[3] * dimensions), (4, 16, *[3] * dimensions)]
    assert weights(filled) == [(16, 4, *[3] * dimensions), (4, 16, *[3] * dimensions)]
    assert OnnxRuntime().operators(filled).fused["QLinearConv"] == 2
    for count in (16, 3, 1):
        assert torch.equal(run(filled, images[:count]), run(plain, images[:count]))
    onnx.checker.check_model(onnx.load(filled), full_check=True)


def weights(path):
    """Shapes of the integer weights of convolutions, in order."""
    graph = onnx.load(path).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    codes = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    return [shapes[codes[node.input[1]]] for node in graph.node if node.op_type == "Conv"]


@pytest.mark.parametrize(
    ("net", "scale"),
    [
        ([nn.Conv2d(1, 8, 3)], scales.absmax),
        ([nn.Conv2d(1, 18, 3)], scales.absmax),
        ([nn.Conv2d(1, 16, 3)], scales.minmax),
    ],
    ids=["few outputs", "outputs that four does not divide", "affine weights"],
)
def test_what_the_kernel_does_not_take_stays_as_it_is(net, scale, tmp_path):
    path = export(quantized(net, scale=scale), tmp_path / "model.onnx", next(iter(loader()))[0])
    assert weights(path)[0][1] == 1
    assert fill_channels(ir.load(path)) == 0


def test_a_float_convolution_stays_as_it_is(tmp_path):
    path = export(Classifier(nn.Conv2d(1, 16, 3)), tmp_path / "model.onnx", next(iter(loader()))[0])
    assert fill_channels(ir.load(path)) == 0
    assert "Gather" not in {node.op_type for node in onnx.load(path).graph.node}


def test_a_file_tells_nothing_of_where_it_was_made(tmp_path):
    path = export(Classifier(nn.Conv2d(1, 2, 3)), tmp_path / "model.onnx", next(iter(loader()))[0])
    assert b"test_rewrites" not in path.read_bytes()
    assert b".py" not in path.read_bytes()


class Mean(nn.Module):
    """The mean over space, in one of the ways in which networks write it."""

    def __init__(self, way):
        super().__init__()
        self.way = way
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, x):
        if self.way == "mean":
            return x.mean((2, 3))
        if self.way == "kept":
            return x.mean((-1, -2), keepdim=True)
        return self.pool(x)


@pytest.mark.parametrize("way", ["mean", "kept", "pool"])
def test_a_mean_over_space_is_pooled_in_integers(way, tmp_path, monkeypatch):
    module = quantized([nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3), nn.ReLU(), Mean(way)])
    images = next(iter(loader()))[0]
    pooled = export(module, tmp_path / "pooled.onnx", images)
    fused = OnnxRuntime().operators(pooled).fused
    assert fused["QLinearGlobalAveragePool"] == 1
    kinds = [node.op_type for node in onnx.load(pooled).graph.node]
    assert "ReduceMean" not in kinds
    monkeypatch.setattr("lightning_compress.deploy.writers.onnx.pool_means", lambda model: 0)
    plain = export(module, tmp_path / "plain.onnx", images)
    assert kinds.count("QuantizeLinear") == [node.op_type for node in onnx.load(plain).graph.node].count(
        "QuantizeLinear"
    )
    for count in (1, 16):
        one, other = run(pooled, images[:count]), run(plain, images[:count])
        assert (one - other).abs().mean() < 0.01 * other.abs().max()
    onnx.checker.check_model(onnx.load(pooled), full_check=True)


def test_means_of_floats_and_over_channels_stay(tmp_path):
    images = next(iter(loader()))[0]
    module = Classifier(nn.Sequential(nn.Conv2d(1, 6, 3), Mean("mean")))
    model = ir.load(export(module, tmp_path / "float.onnx", images))
    assert pool_means(model) == 0
    assert "ReduceMean" in {node.op_type for node in model.graph}


class Adding(nn.Module):
    """Adds what it makes of a constant in the shape of its input; ``size`` is that of the constant."""

    def __init__(self, size, between=None, scale=False):
        super().__init__()
        self.constant = nn.Parameter(torch.randn(size, generator=torch.Generator().manual_seed(0)))
        self.between = between or nn.Identity()
        self.scale = scale

    def forward(self, x):
        branch = self.between(self.constant.expand(x.shape))
        return (
            branch.flatten(1)
            if self.scale is None
            else x + branch * (x.mean((2, 3), keepdim=True) if self.scale else 1)
        )


def normalization():
    norm = nn.BatchNorm2d(3)
    nn.init.uniform_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


@pytest.mark.parametrize(
    ("module", "expands"),
    [
        (Adding((1, 3, 1, 1)), 0),
        (Adding((1, 3, 1, 1), nn.Sequential(normalization(), nn.ReLU())), 0),
        (Adding((1, 1, 1, 5)), 0),
        (Adding((1, 1, 1, 5), normalization()), 1),  # which needs its channels
        (Adding((1, 3, 1, 1), nn.Softmax(3)), 1),  # which needs its whole row
        (Adding((1, 3, 1, 1), scale=True), 1),  # multiplied by what is not whole either
        (Adding((1, 3, 1, 1), scale=None), 1),  # given out
    ],
)
def test_additions_and_products_broadcast_what_was_expanded(module, expands, tmp_path):
    images = torch.randn(2, 3, 4, 5)
    path = export(module.eval(), tmp_path / "m.onnx", images)
    nodes = [node.op_type for node in onnx.load(path).graph.node]
    assert nodes.count("Expand") == expands
    more = torch.randn(5, 3, 4, 5)
    torch.testing.assert_close(run(path, more), module(more).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:ONNX Runtime computes layers")
@pytest.mark.parametrize("up", [False, True])
def test_convolutions_that_were_left_out_stay_float(up, tmp_path, monkeypatch):
    """ONNX Runtime would quantize weights that lie between integers; one channel has large ones here."""
    middle = nn.ConvTranspose2d(16, 16, 3) if up else nn.Conv2d(16, 16, 3)
    net = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), middle, nn.ReLU(), nn.Conv2d(16, 16, 1), nn.ReLU())
    head = nn.Sequential(nn.Flatten(), nn.Linear(16 * (64 if up else 16), 10))
    module = Classifier(nn.Sequential(*net, *head), lr=0.01)
    seed_everything(0, verbose=False)
    trainer(QATCallback(7, schedule=Constant(), exclude=("net.2",))).fit(module, loader(), loader(2))
    module.eval().requires_grad_(False).net[2].weight[0].mul_(10)
    images = torch.cat([x for x, _ in loader()])
    reference = lower(module, (images[:2],), integer_bias=True)(images)
    path = export(module, tmp_path / "m.onnx", images[:4])
    near = (run(path, images) - reference).abs().mean()
    assert OnnxRuntime().operators(path).fused == {"QLinearConv": 2, "QGemm": 1}
    monkeypatch.setattr("lightning_compress.deploy.writers.onnx.keep_floats", lambda model: 0)
    far = (run(export(module, tmp_path / "m.onnx", images[:4]), images) - reference).abs().mean()
    assert near < 0.02 * far
