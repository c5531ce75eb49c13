import numpy as np
import onnx
import pytest
import torch
from onnxruntime.capi.onnxruntime_pybind11_state import Fail
from torch import nn

from lightning_compress.deploy import export
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.deploy.writers.onnx import Onnx
from lightning_compress.quantization import QATCallback, profiles
from tests.support.classifiers import Classifier, Conv, ResNet, fit, loader, mlp
from tests.support.tensorrt import violations

IMAGES = next(iter(loader()))[0]


@pytest.fixture(scope="module")
def symmetric():
    module = Conv()
    fit(module, QATCallback(profile=profiles.TensorRT()))
    return module


@pytest.mark.parametrize("net", [ResNet, mlp])
def test_a_module_trained_for_tensorrt_keeps_its_rules(net, tmp_path):
    module = Classifier(net())
    fit(module, QATCallback(profile=profiles.TensorRT()))
    export(module, tmp_path / "m.onnx", IMAGES)
    assert violations(tmp_path / "m.onnx") == []
    [outputs] = OnnxRuntime().load(tmp_path / "m.onnx")([IMAGES])
    assert torch.equal(outputs.argmax(1), module.eval()(IMAGES).argmax(1))


def pooled():
    moves = [nn.MaxPool2d(2), nn.Unflatten(1, (2, 2)), nn.Flatten(1, 2)]
    head = [nn.Conv2d(4, 4, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 10)]
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), *moves, *head)


def test_moves_of_signed_codes_run_on_x86_cpus(tmp_path):
    """Where no rounding follows such moves, ONNX Runtime 1.32 adds one, wrongly, and refuses the graph."""
    module = Classifier(pooled())
    fit(module, QATCallback(7, profile=profiles.TensorRT()))
    export(module, tmp_path / "m.onnx", IMAGES)
    assert violations(tmp_path / "m.onnx") == []
    nodes = [node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node]
    after = [nodes[place + 1] for place, kind in enumerate(nodes) if kind in ("MaxPool", "Reshape")]
    assert after[:3] == ["QuantizeLinear"] * 3
    [outputs] = OnnxRuntime().load(tmp_path / "m.onnx")([IMAGES])
    torch.testing.assert_close(outputs, module.eval()(IMAGES).detach(), rtol=0, atol=0.02)


def test_a_file_that_onnx_runtime_does_not_load_is_refused(tmp_path, monkeypatch):
    def refuse(self, path):
        raise Fail("output_dtype INT8 does not match")

    monkeypatch.setattr(OnnxRuntime, "load", refuse)
    with pytest.raises(
        ValueError, match=r"need operations that ONNX Runtime computes .*, got output_dtype INT8 does not match"
    ):
        export(Classifier(), tmp_path / "m.onnx", IMAGES)
    assert not list(tmp_path.iterdir())


def test_a_module_trained_for_onnx_runtime_breaks_them_and_is_refused(tmp_path):
    module = Conv()
    fit(module, QATCallback())
    export(module, tmp_path / "m.onnx", IMAGES)
    broken = violations(tmp_path / "m.onnx")
    assert any("no int8" in rule for rule in broken)
    with pytest.raises(ValueError, match="need symmetric ranges of activations for TensorRT, got others at net"):
        export(module, tmp_path / "other.onnx", IMAGES, writer=Onnx(profile=profiles.TensorRT()))
    assert not (tmp_path / "other.onnx").exists()


def test_biases_are_integers_where_that_is_asked(symmetric, tmp_path):
    profile = profiles.TensorRT(round_biases=True)
    export(symmetric, tmp_path / "m.onnx", IMAGES, writer=Onnx(profile=profile))
    kinds = {entry.data_type for entry in onnx.load(tmp_path / "m.onnx").graph.initializer}
    assert onnx.TensorProto.INT32 in kinds
    assert onnx.TensorProto.UINT8 not in kinds
    [outputs] = OnnxRuntime().load(tmp_path / "m.onnx")([IMAGES])
    assert torch.allclose(outputs, symmetric.eval()(IMAGES), atol=0.05)


def test_names_metadata_and_opset(tmp_path):
    writer = Onnx(input_names=["image"], output_names=["scores"], batch_name="n", metadata={"classes": "ten"}, opset=22)
    module = Classifier()
    export(module, tmp_path / "m.onnx", IMAGES, writer=writer)
    model = onnx.load(tmp_path / "m.onnx")
    [image], [scores] = model.graph.input, model.graph.output
    assert (image.name, scores.name) == ("image", "scores")
    assert [entry.type.tensor_type.shape.dim[0].dim_param for entry in (image, scores)] == ["n", "n"]
    assert {entry.key: entry.value for entry in model.metadata_props} == {"classes": "ten"}
    assert [entry.version for entry in model.opset_import if not entry.domain] == [22]
    for size in (1, 5):
        [outputs] = OnnxRuntime().load(tmp_path / "m.onnx")([IMAGES[:size]])
        np.testing.assert_allclose(outputs, module.eval()(IMAGES[:size]).detach(), atol=1e-5)


def test_quantized_names_and_opset(symmetric, tmp_path):
    writer = Onnx(input_names=["image"], output_names=["scores"], opset=23)
    export(symmetric, tmp_path / "m.onnx", IMAGES, writer=writer)
    assert violations(tmp_path / "m.onnx") == []
    assert [entry.name for entry in onnx.load(tmp_path / "m.onnx").graph.output] == ["scores"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"opset": 20}, ValueError, "need opset >= 21, got opset=20"),
        ({"opset": "21"}, TypeError, "need opset as an integer, got '21'"),
        ({"input_names": "x"}, TypeError, "need input_names as a sequence"),
        ({"profile": "TensorRT"}, TypeError, "need profile as a Profile, such as profiles.TensorRT"),
        ({"metadata": {"classes": 10}}, TypeError, "need batch_name and metadata as text"),
    ],
)
def test_bad_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        Onnx(**options)


def test_a_number_of_names_that_does_not_fit_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"need output_names for 1 tensors, .*got \('a', 'b'\)"):
        export(Classifier(), tmp_path / "m.onnx", IMAGES, writer=Onnx(output_names=["a", "b"]))
    assert not list(tmp_path.iterdir())


def test_kernels_of_this_cpu_that_compute_something_else_are_told(symmetric, tmp_path, monkeypatch):
    load = OnnxRuntime.load

    def saturated(self, path):
        run = load(self, path)
        return (lambda inputs: [output.clamp(max=0.1) for output in run(inputs)]) if self.fused else run

    monkeypatch.setattr(OnnxRuntime, "load", saturated)
    with pytest.warns(UserWarning, match=r"on this CPU compute something else.*train with weight_bits=7"):
        export(symmetric, tmp_path / "m.onnx", IMAGES)
    assert (tmp_path / "m.onnx").exists()


def test_a_file_that_is_wrong_without_kernels_too_is_refused(symmetric, tmp_path, monkeypatch):
    load = OnnxRuntime.load
    monkeypatch.setattr(OnnxRuntime, "load", lambda self, path: lambda inputs: [-x for x in load(self, path)(inputs)])
    with pytest.raises(ValueError, match="need m.onnx to compute the same as the quantized module"):
        export(symmetric, tmp_path / "m.onnx", IMAGES)
    assert not list(tmp_path.iterdir())


def test_a_profile_without_quantization_is_said_to_have_no_effect(tmp_path):
    with pytest.warns(
        UserWarning, match=r"Onnx\(profile=TensorRT\(.*\)\) has no effect on a module without quant.*: train"
    ):
        export(Conv().eval(), tmp_path / "m.onnx", IMAGES, writer=Onnx(profile=profiles.TensorRT()))
