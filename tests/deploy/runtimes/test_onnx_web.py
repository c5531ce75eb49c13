"""ONNX Runtime Web: it computes what ONNX Runtime does, in the WebAssembly of browsers."""

import gc
import subprocess

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from lightning_compress import QATCallback, export
from lightning_compress.deploy.runtimes import OnnxRuntime, OnnxRuntimeWeb, onnx_web
from lightning_compress.deploy.writers.onnx import Onnx
from lightning_compress.report.measures.deployments import measure_deployments
from tests.support.classifiers import Conv, fit, loader
from tests.support.web import web_package

IMAGES = torch.cat([x for x, _ in loader()])
TYPES = ["float32", "float64", "int64", "int32", "int16", "int8", "uint8", "bool"]


@pytest.fixture(autouse=True)
def _found(monkeypatch):
    folder = web_package()
    if folder is None:
        pytest.skip("need Node.js and the npm package onnxruntime-web")
    monkeypatch.setenv("NODE_PATH", str(folder))


@pytest.fixture(scope="module")
def integers(tmp_path_factory):
    torch.manual_seed(0)
    module = Conv()
    fit(module, QATCallback(7))  # with 8 bits kernels without VNNI saturate
    return module.eval(), export(module, tmp_path_factory.mktemp("web") / "m.onnx", IMAGES[:4])


def test_integers_are_those_of_onnx_runtime(integers):
    module, path = integers
    run = OnnxRuntimeWeb().load(path)
    (logits,) = run([IMAGES])
    (expected,) = OnnxRuntime().load(path)([IMAGES])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)
    with torch.no_grad():
        assert (logits.argmax(1) == module(IMAGES).argmax(1)).float().mean() > 0.98
    for count in (1, 5):
        torch.testing.assert_close(run([IMAGES[:count]])[0], logits[:count], rtol=0, atol=1e-5)


def test_layers_are_counted_as_they_ran(integers):
    operators = OnnxRuntimeWeb().operators(integers[1])
    assert (operators.layers, operators.floating) == (10, ())  # nine convolutions and a linear layer
    assert operators.fused["QLinearConv"] == 9


def test_a_float_layer_has_its_name(tmp_path):
    path = export(torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU()), tmp_path / "m.onnx", IMAGES[:1])
    operators = OnnxRuntimeWeb().operators(path)
    assert (operators.layers, operators.floating) == (0, ("0",))


@pytest.mark.parametrize("kind", TYPES)
def test_every_kind_of_number_arrives_and_comes_back(kind, tmp_path):
    code = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    assert code != TensorProto.UNDEFINED
    one, two = (helper.make_tensor_value_info(name, code, ["n", 3]) for name in ("x", "y"))
    outputs = [helper.make_tensor_value_info(name, code, ["n", 3]) for name in ("a", "b")]
    nodes = [helper.make_node("Identity", ["y"], ["a"]), helper.make_node("Identity", ["x"], ["b"])]
    graph = helper.make_graph(nodes, "g", [one, two], outputs)
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    onnx.save(model, tmp_path / "m.onnx")
    x, y = (torch.from_numpy(np.arange(-3, 3).reshape(2, 3).astype(kind)) for _ in range(2))
    y = y.flip(1)
    a, b = OnnxRuntimeWeb().load(tmp_path / "m.onnx")([x, y])
    assert torch.equal(a, y)
    assert torch.equal(b, x)
    assert a.dtype == y.dtype


def test_a_refused_input_is_named_and_the_next_one_runs(integers):
    run = OnnxRuntimeWeb().load(integers[1])
    with pytest.raises(ValueError, match=r"need m.onnx to run in ONNX Runtime Web, got .*invalid dimensions for input"):
        run([IMAGES[:1, :, :5]])
    with pytest.raises(ValueError, match=r"need a tensor for each input of m.onnx, \w+, got 2"):
        run([IMAGES, IMAGES])
    assert run([IMAGES[:3]])[0].shape == (3, 10)


def test_a_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no graph")
    with pytest.raises(ValueError, match=r"need m.onnx to run in ONNX Runtime Web, got .*protobuf parsing failed"):
        OnnxRuntimeWeb().load(tmp_path / "m.onnx")


def test_what_is_missing_is_named(integers, monkeypatch, tmp_path):
    assert OnnxRuntimeWeb().present()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NODE_PATH")
    assert not OnnxRuntimeWeb().present()
    with pytest.raises(ImportError, match="need the npm package onnxruntime-web to run m.onnx, got none: .* `npm"):
        OnnxRuntimeWeb().load(integers[1])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not OnnxRuntimeWeb().present()
    with pytest.raises(ImportError, match="need the command node to run m.onnx .*, got none: install Node.js"):
        OnnxRuntimeWeb().load(integers[1])


def test_no_process_is_left(integers, monkeypatch):
    started = []

    class Noted(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr(onnx_web.subprocess, "Popen", Noted)
    run = OnnxRuntimeWeb().load(integers[1])
    (process,) = started
    run([IMAGES[:1]])
    assert process.poll() is None
    del run
    gc.collect()
    assert process.returncode is not None
    assert process.stdin.closed
    assert process.stdout.closed


def test_a_report_lists_it_where_it_is(integers, monkeypatch):
    monkeypatch.setattr(
        "lightning_compress.report.measures.deployments._latencies", lambda runs, inputs: None
    )  # timing takes long
    module, path = integers
    found = measure_deployments(Conv(), module, path, IMAGES[:1], IMAGES, Onnx())
    assert [one.runtime for one in found] == ["ONNX Runtime", "OpenVINO", "ONNX Runtime Web"]
    assert (found[2].integer, found[2].floating) == (10, ())
    assert found[2].agreement > 0.98


def test_a_latency_can_be_measured_in_it():
    module = Conv().eval()
    run = OnnxRuntimeWeb()(module, IMAGES[:4])
    torch.testing.assert_close(run()[0], module(IMAGES[:4]).detach(), atol=1e-4, rtol=1e-4)
