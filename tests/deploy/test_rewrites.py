import onnx
import onnxruntime
import pytest
import torch
from onnxscript import ir
from torch import nn

from lightning_compress.deploy import export
from lightning_compress.deploy.rewrites import pool_means, spread_single_channels
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.quantization import QATCallback
from lightning_compress.schedules import Constant
from tests.quantization.models import Classifier, fit, loader


def quantized(net):
    module = Classifier(nn.Sequential(*net, nn.Flatten(), nn.LazyLinear(10)))
    with torch.no_grad():
        module(next(iter(loader()))[0])
    fit(module, QATCallback(schedule=Constant()))
    return module


def run(path, images):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


def test_a_convolution_of_one_channel_becomes_depthwise_and_gives_the_same(tmp_path, monkeypatch):
    module = quantized([nn.Conv2d(1, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU()])
    images = next(iter(loader()))[0]
    spread = export(module, tmp_path / "spread.onnx", images)
    monkeypatch.setattr("lightning_compress.deploy.onnx.spread_single_channels", lambda model: 0)
    plain = export(module, tmp_path / "plain.onnx", images)
    groups = [
        [attribute.i for attribute in node.attribute if attribute.name == "group"]
        for node in onnx.load(spread).graph.node
        if node.op_type == "Conv"
    ]
    assert groups == [[6], [1]]
    assert torch.equal(run(spread, images), run(plain, images))
    assert torch.equal(run(spread, images[:3]), run(plain, images[:3]))


@pytest.mark.parametrize("net", [[nn.Conv2d(1, 6, 3)], [nn.Conv2d(1, 1, 3)]], ids=["float", "one output"])
def test_others_stay_as_they_are(net, tmp_path):
    module = Classifier(nn.Sequential(*net)) if net[0].out_channels == 6 else quantized(net)
    path = export(module, tmp_path / "model.onnx", next(iter(loader()))[0])
    model = ir.load(path)
    assert spread_single_channels(model) == 0
    assert "Expand" not in {node.op_type for node in model.graph}


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
    monkeypatch.setattr("lightning_compress.deploy.onnx.pool_means", lambda model: 0)
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
