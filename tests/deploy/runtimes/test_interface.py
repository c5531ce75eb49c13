"""Runtimes: both run the same file, and say what they compute in integers."""

import pytest
import torch

from lightning_compress.deploy import export
from lightning_compress.deploy.runtimes import IntegerOperators, LiteRT, OnnxRuntime, OpenVINO, installed
from lightning_compress.quantization import QATCallback, profiles
from tests.support.classifiers import Conv, fit, loader

IMAGES = torch.cat([x for x, _ in loader()])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The same network with integers and in float."""
    folder = tmp_path_factory.mktemp("files")
    torch.manual_seed(0)
    integers, floats = Conv(), Conv()
    fit(integers, QATCallback())
    fit(floats)
    return {
        name: (module.eval(), export(module, folder / f"{name}.onnx", IMAGES[:4]))
        for name, module in (("integers", integers), ("floats", floats))
    }


@pytest.mark.parametrize("runtime", [OnnxRuntime(), OpenVINO()], ids=lambda runtime: runtime.name)
def test_it_computes_what_torch_does(runtime, files):
    for name, (module, path) in files.items():
        (logits,) = runtime.load(path)([IMAGES])
        with torch.no_grad():
            expected = module(IMAGES)
        if name == "floats":
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        # OpenVINO does not round a residual branch before the addition, which the quantized network does.
        least = 0.95 if (name, runtime.name) == ("integers", "OpenVINO") else 0.98
        assert (logits.argmax(1) == expected.argmax(1)).float().mean() > least
        # Other shapes, and the first again; what was given stays what it was.
        run = runtime.load(path)
        kept = run([IMAGES])[0]
        for count in (1, 5):
            torch.testing.assert_close(run([IMAGES[:count]])[0], logits[:count], rtol=1e-4, atol=1e-4)
        run([IMAGES.flip(0)])
        assert torch.equal(kept, logits)


@pytest.mark.parametrize("runtime", [OnnxRuntime(), OpenVINO()], ids=lambda runtime: runtime.name)
def test_layers_are_counted(runtime, files):
    integers, floats = (runtime.operators(path) for _, path in files.values())
    assert (integers.layers, integers.floating) == (10, ())  # nine convolutions and a linear layer
    assert (floats.layers, len(floats.floating)) == (0, 10)


@pytest.mark.filterwarnings("ignore:ONNX Runtime computes layers of residual.onnx in float")
def test_without_rounded_branches_openvino_computes_what_was_validated(tmp_path):
    torch.manual_seed(0)
    module = Conv()
    fit(module, QATCallback(7, profile=profiles.OpenVINO()))  # with 8 bits kernels without VNNI saturate
    path = export(module.eval(), tmp_path / "residual.onnx", IMAGES[:4])
    with torch.no_grad():
        expected = module(IMAGES)
    for runtime in (OnnxRuntime(), OpenVINO()):
        (logits,) = runtime.load(path)([IMAGES])
        # An activation in the middle between two integers may be rounded the other way; that moves few images.
        assert ((logits - expected).abs().amax(1) < 1e-5).float().mean() >= 0.98
        assert torch.equal(logits.argmax(1), expected.argmax(1))
    assert OpenVINO().operators(path).layers == 10


def test_what_is_installed_is_found(monkeypatch):
    assert [runtime.name for runtime in installed([OnnxRuntime(), OpenVINO()])] == ["ONNX Runtime", "OpenVINO"]
    monkeypatch.setattr(
        "lightning_compress.deploy.runtimes.interface.find_spec", lambda name: name == "openvino" or None
    )
    assert [runtime.name for runtime in installed([OnnxRuntime(), OpenVINO()])] == ["OpenVINO"]


def test_messages_show_arguments_that_are_no_defaults():
    assert [repr(one) for one in (OnnxRuntime(), OnnxRuntime(fused=False), OpenVINO(), LiteRT(reference=True))] == [
        "OnnxRuntime()",
        "OnnxRuntime(fused=False)",
        "OpenVINO()",
        "LiteRT(reference=True)",
    ]


def test_additions_are_no_layers():
    assert IntegerOperators({"QLinearAdd": 3, "QLinearConv": 2, "FullyConnected i8": 1}, ()).layers == 3


@pytest.mark.parametrize("runtime", [OnnxRuntime(), OnnxRuntime(fused=False), OpenVINO()], ids=str)
def test_a_runtime_runs_a_module(runtime, files):
    module, _ = files["floats"]
    run = runtime(module, IMAGES[:4])
    (output,) = run()
    torch.testing.assert_close(output, module(IMAGES[:4]).detach(), atol=1e-4, rtol=1e-4)
    module.train()
    runtime(module, IMAGES[:4])
    assert module.training
    module.eval()
