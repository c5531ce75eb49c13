"""Rows: products of integers with a range for each row of activations; numpy is the reference for the sums."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from lightning_compress.deploy import export
from lightning_compress.deploy.runtimes import OnnxRuntime, OpenVINO
from lightning_compress.quantization import QATCallback, profiles
from lightning_compress.quantization.weights import grids_of
from tests.support.classifiers import Classifier, fit, loader

IMAGES = torch.cat([x for x, _ in loader()])
ROWS = profiles.Dynamic()


def trained(bits, *layers):
    module = Classifier(nn.Sequential(*(layers or (nn.Flatten(), nn.Linear(64, 32), nn.GELU(), nn.Linear(32, 10)))))
    fit(module, QATCallback(bits, profile=ROWS))
    return module.eval()


def integer_product(x, weight, scale, bias):
    """``x @ weight.T + bias`` with sums of integers, each row of ``x`` rounded to 127 steps."""
    steps = np.abs(x).max(-1, keepdims=True) / np.float32(127)
    sums = np.rint(x / steps).astype(np.int64) @ np.rint(weight / scale).astype(np.int64).T
    return sums * scale.T.astype(np.float64) * steps + bias


@pytest.mark.parametrize(("bits", "kind"), [(8, TensorProto.UINT8), (7, TensorProto.INT8), (4, TensorProto.INT8)])
def test_the_file_sums_integers_exactly_on_every_cpu(bits, kind, tmp_path):
    module = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    # Large weights of one sign: sums of two products leave 16 bits, in which some CPUs add.
    nn.init.uniform_(module.net[1].weight, 0.9, 1.0)
    fit(module, QATCallback(bits, profile=ROWS))
    path = export(module.eval(), tmp_path / "m.onnx", IMAGES[:4])
    layer, grid = module.net[1], grids_of(module)["net.1.weight"]
    tensors = (tensor.detach().numpy() for tensor in (layer.weight, grid.scale, layer.bias))
    expected = integer_product(IMAGES.flatten(1).numpy(), *tensors)
    (got,) = OnnxRuntime().load(path)([IMAGES])
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    [node] = [node for node in onnx.load(path).graph.node if node.op_type == "MatMulInteger"]
    stored = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    assert stored[node.input[1]].data_type == kind
    assert node.name == "net.1"


@pytest.mark.parametrize("runtime", [OnnxRuntime(), OnnxRuntime(fused=False), OpenVINO()])
def test_a_row_counts_alike_alone_and_beside_larger_ones(runtime, tmp_path):
    module = trained(8)
    run = runtime.load(export(module, tmp_path / "m.onnx", IMAGES[:4]))
    images = IMAGES[:6] * torch.logspace(-2, 2, 6).view(-1, 1, 1, 1)
    (together,) = run([images])
    alone = torch.cat([run([images[i : i + 1]])[0] for i in range(6)])
    assert torch.allclose(together, alone, rtol=1e-5, atol=1e-6)
    assert torch.allclose(together, module(images).detach(), rtol=0.02, atol=1e-3)
    # One range for all rows would round the small images to zero: what is left would be the bias.
    assert (together[0] - run([torch.zeros_like(images[:1])])[0]).abs().max() > 1e-3


def test_every_linear_layer_is_integer_and_nothing_else_is_rounded(tmp_path):
    module = trained(8, nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 32), nn.Linear(32, 10))
    path = export(module, tmp_path / "m.onnx", IMAGES[:4])
    operators = OnnxRuntime().operators(path)
    assert sum(operators.fused.values()) == 2
    assert operators.floating == ("net.0",)
    assert {node.op_type for node in onnx.load(path).graph.node}.isdisjoint({"Clip", "DynamicQuantizeLinear"})


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".lcz"])
def test_zeros_have_a_scale(suffix, tmp_path):
    module = trained(8)
    zeros = torch.zeros(2, 1, 8, 8)
    path = export(module, tmp_path / f"m{suffix}", zeros)
    assert path.stat().st_size
    assert module(zeros).isfinite().all()


@pytest.mark.filterwarnings("ignore:no quantizer reaches")
def test_a_layer_that_reads_weights_past_their_modules_calls_them(tmp_path):
    """nn.TransformerEncoderLayer has a kernel for all its weights, which it takes where no layer has a hook."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    module = trained(8, nn.Flatten(1, 2), layer, nn.Flatten(), nn.Linear(64, 10))
    path = export(module, tmp_path / "m.onnx", IMAGES[:4])
    assert [node.op_type for node in onnx.load(path).graph.node].count("MatMulInteger") == 3
    (got,) = OnnxRuntime().load(path)([IMAGES])
    assert torch.allclose(got, module(IMAGES).detach(), atol=0.02 * float(got.abs().max()))
