"""Blocks: a scale for every few inputs, in ONNX as four-bit blocks that runtimes multiply by as they are."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from lightning_compress.deploy import export
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.quantization import PerGroup, QATCallback
from tests.support.classifiers import Classifier, fit, loader

IMAGES = torch.cat([x for x, _ in loader()])


def trained(bits, scale=None):
    hidden = [nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 32), nn.ReLU(), nn.Linear(32, 10)]
    module = Classifier(nn.Sequential(nn.Flatten(), *hidden))
    options = {"scale": scale} if scale else {}
    fit(module, QATCallback(bits, activation_bits=None, granularity=PerGroup(16), **options))
    return module.eval()


@pytest.mark.parametrize(
    ("bits", "kind"), [(4, onnx.TensorProto.INT4), (3, onnx.TensorProto.INT4), (6, onnx.TensorProto.INT8)]
)
def test_weights_are_written_as_blocks(bits, kind, tmp_path):
    module = trained(bits)
    path = export(module, tmp_path / "m.onnx", IMAGES[:4])
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    blocks = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    weights = [module.net[index].weight.detach().numpy() for index in (1, 3, 5)]
    assert len(blocks) == len(weights)
    for node, weight in zip(blocks, weights, strict=True):
        codes, scale, zero_point = (stored[name] for name in node.input)
        assert codes.data_type == zero_point.data_type == kind
        spread = np.repeat(numpy_helper.to_array(scale), 16, axis=0)
        np.testing.assert_array_equal((numpy_helper.to_array(codes).astype(np.float32) * spread).T, weight)
    if kind == TensorProto.INT4:
        assert sum(len(stored[node.input[0]].raw_data) for node in blocks) == sum(w.size for w in weights) / 2


def test_runtime_multiplies_by_packed_weights(tmp_path):
    module = trained(4)
    path = export(module, tmp_path / "m.onnx", IMAGES[:4])
    assert OnnxRuntime().operators(path).fused == {"MatMulNBits": 3}
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})
    with torch.no_grad():
        expected = module(IMAGES)
    assert (torch.from_numpy(logits).argmax(1) == expected.argmax(1)).float().mean() > 0.98
    assert (torch.from_numpy(logits) - expected).abs().mean() < 0.01 * expected.abs().max()


def test_activations_of_integers_pass_before_blocks(tmp_path):
    hidden = [nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)]
    module = Classifier(nn.Sequential(nn.Flatten(), *hidden))
    fit(module, QATCallback(4, activation_bits=8, granularity=PerGroup(16)))
    with pytest.warns(UserWarning, match="computes layers of m.onnx in float"):
        path = export(module.eval(), tmp_path / "m.onnx", IMAGES[:4])
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("QuantizeLinear") == 2


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.out = nn.Linear(16, 10)

    def forward(self, images):
        rows = images.reshape(-1, 4, 16)
        return self.out(self.attention(rows, rows, rows)[0].mean(1))


def test_attention_reads_blocks_of_its_projection(tmp_path):
    """It takes weight and bias of ``out_proj``, and never calls it."""
    module = Classifier(Attention())
    fit(module, QATCallback(4, activation_bits=None, granularity=PerGroup(8)))
    path = export(module.eval(), tmp_path / "m.onnx", IMAGES[:4])
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, module(IMAGES).numpy(), atol=0.01)
