import onnx
import onnxruntime
import pytest
import torch
from onnxscript import ir
from torch import nn

from lightning_compress.deploy import export
from lightning_compress.deploy.rewrites import spread_single_channels
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
