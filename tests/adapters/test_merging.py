"""Merging meets zeros, grids and shared values exactly, though sums are rounded; merged models run in runtimes."""

import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from lightning_compress import PerGroup, PruningCallback, QATCallback, WeightSharingCallback, export
from lightning_compress.adapters import merge
from lightning_compress.adapters.merging import merged_weight
from lightning_compress.adapters.paths import additive_paths
from lightning_compress.deploy.runtimes import ExecuTorch, OnnxRuntime
from lightning_compress.quantization import profiles
from lightning_compress.quantization.weights import grids_of
from lightning_compress.schedules import Constant
from tests.support.toys import Adapted, Added, LoRA, build, digits, fit


@pytest.fixture(scope="module")
def quantized():
    module = build(kind=Adapted)
    fit(module, QATCallback(4, activation_bits=None), PruningCallback(0.5, schedule=Constant()))
    return module


def test_the_plain_sum_misses_the_grid_and_the_merged_weight_meets_it(quantized):
    grids = grids_of(quantized)
    missed = 0
    for path in additive_paths(quantized):
        grid, total = grids[path.weight_name], path.parameter.detach() + path()
        missed += int((grid.project(total) != total).sum())
        exact = merged_weight(path)
        assert torch.equal(grid.project(exact), exact)
        torch.testing.assert_close(exact, total, rtol=1e-5, atol=1e-6)
    assert missed


def test_merge_leaves_a_plain_model_that_computes_the_same(quantized):
    module, images = copy.deepcopy(quantized).eval(), digits()[0][1400:]
    merged = merge(copy.deepcopy(module))
    assert isinstance(merged.net[0], nn.Conv2d)
    assert [type(layer) for layer in merged.net if isinstance(layer, Added)] == []
    with torch.no_grad():
        torch.testing.assert_close(merged(images), module(images), rtol=1e-5, atol=1e-5)
    assert merge(merged) is merged  # nothing is left to merge


def test_zeros_survive_a_delta_that_another_machine_computes(quantized):
    """The delta then differs in its last bits, so that ``weight + delta`` is 1e-9 where it was 0."""
    module = copy.deepcopy(quantized)
    zeros = [merged_weight(path) == 0 for path in additive_paths(module)]
    for path in additive_paths(module):
        path.layer.up.data *= 1 + 3e-7
    for path, zero in zip(additive_paths(module), zeros, strict=True):
        assert torch.equal(merged_weight(path) == 0, zero)


def test_other_adapters_are_merged_off_the_grid_with_a_warning(quantized):
    module = copy.deepcopy(quantized)
    path = additive_paths(module)[2]
    nn.init.ones_(path.layer.up)
    with pytest.warns(UserWarning, match="the merged weight of 'net.9' is not on its grid: its adapters are not those"):
        weight = merged_weight(path)
    assert torch.equal(weight, path.parameter.detach() + path())


@pytest.mark.parametrize("method", [PruningCallback(0.5), WeightSharingCallback(8)], ids=["pruned", "shared"])
def test_other_adapters_are_merged_off_zeros_and_shared_values_with_a_warning(method):
    module = build(kind=LoRA)
    fit(module, method, max_steps=12)
    (path,) = [path for path in additive_paths(module) if path.name == "net.9"]
    merged_weight(path)
    path.layer.scaling["default"] = 3.0
    with pytest.warns(UserWarning, match="the merged weight of 'net.9' may lack its zeros and shared values"):
        path.layer.merge()


def test_shared_values_stay_few():
    module = build(kind=Adapted)
    fit(module, WeightSharingCallback(8, schedule=Constant()))
    (path,) = [path for path in additive_paths(module) if path.name == "net.9"]
    assert len((path.parameter + path()).unique()) > 8
    assert len(merged_weight(path).unique()) <= 8


def test_a_weight_that_is_not_compressed_is_the_plain_sum():
    layer = Added(nn.Linear(64, 32))
    nn.init.normal_(layer.up)
    (path,) = additive_paths(layer)
    assert torch.equal(merged_weight(path), layer.base.weight + layer.delta())
    assert merge(layer) is layer.base


def test_a_layer_that_is_used_twice_is_merged_once():
    layer = Added(nn.Linear(3, 3))
    nn.init.ones_(layer.up)
    total, net = layer.base.weight + layer.delta(), nn.Sequential(layer, nn.ReLU(), layer)
    merge(net)
    assert net[0] is net[2] is layer.base
    assert torch.equal(net[0].weight, total)


def test_names_of_no_adapters_are_refused():
    net = nn.Sequential(Added(nn.Linear(3, 3)), nn.Linear(3, 3))
    with pytest.raises(ValueError, match="need names of layers with adapters, got 1, gone; there are: 0$"):
        merge(net, ["0", "1", "gone"])
    with pytest.raises(TypeError, match=r"need names as a sequence of patterns, got '0': write \('0',\)$"):
        merge(net, "0")
    with pytest.raises(TypeError, match="need module as a torch.nn.Module, got OrderedDict"):
        merge(net.state_dict())
    assert isinstance(net[0], Added)
    merge(net, {"0"})
    assert isinstance(net[0], nn.Linear)


IMAGES = digits()[0][:64]


def trained(*callbacks):
    module = build(kind=LoRA)
    fit(module, *callbacks)
    assert len(additive_paths(module)) == 4
    return module.eval()


@torch.no_grad()
def test_blocks_of_four_bits_in_onnx(tmp_path):
    bits = QATCallback(4, activation_bits=None, granularity=PerGroup(32), include=["net.9.*"])
    module = trained(bits, PruningCallback(0.5, schedule=Constant(), scope="layer", include=["net.9.*"]))
    path = export(module, tmp_path / "m.onnx", IMAGES)
    [logits] = OnnxRuntime().load(path)([IMAGES])  # its kernel rounds activations to 8 bits
    expected = module(IMAGES)
    assert (logits - expected).abs().mean() < 0.01 * expected.abs().max()
    model = onnx.load(path)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    [node] = [node for node in model.graph.node if node.op_type == "DequantizeLinear"]
    codes, scale = (numpy_helper.to_array(stored[name]).astype(np.float32) for name in node.input[:2])
    assert stored[node.input[0]].data_type == TensorProto.INT4
    merged = merge(copy.deepcopy(module)).net[9].weight
    np.testing.assert_array_equal((codes * np.repeat(scale, 32, axis=0)).T, merged)
    assert int((codes == 0).sum()) >= 32 * 64 // 2
    assert not any("lora" in name for name in stored)
    assert additive_paths(module)  # a copy was merged


RUNTIMES = {
    ".onnx": (profiles.OnnxRuntime(), OnnxRuntime()),
    ".pte": (profiles.Mobile(), ExecuTorch()),
}


@torch.no_grad()
@pytest.mark.parametrize("suffix", RUNTIMES)
def test_integers_of_merged_models_run(suffix, tmp_path):
    """The file of the model with adapters and that of its merged copy give the same numbers."""
    profile, runtime = RUNTIMES[suffix]
    module = trained(QATCallback(7, profile=profile))  # with 8 bits kernels without VNNI saturate
    merged = merge(copy.deepcopy(module)).eval()
    torch.testing.assert_close(merged(IMAGES), module(IMAGES), rtol=1e-3, atol=1e-3)
    paths = [export(model, tmp_path / f"{name}{suffix}", IMAGES[:4]) for name, model in (("a", module), ("b", merged))]
    [logits], [plain] = (runtime.load(path)([IMAGES]) for path in paths)
    assert torch.equal(logits, plain)
    assert (logits.argmax(1) == module(IMAGES).argmax(1)).float().mean() > 0.95
    assert runtime.operators(paths[0]).floating == ()


@torch.no_grad()
def test_floating_point_of_a_merged_model_in_executorch(tmp_path):
    module = trained(PruningCallback(0.5))
    path = export(module, tmp_path / "m.pte", IMAGES[:4])
    [logits] = ExecuTorch().load(path)([IMAGES])
    torch.testing.assert_close(logits, module(IMAGES), rtol=1e-4, atol=1e-5)
