"""ExecuTorch: what was trained in integers runs in XNNPACK's integer kernels, and gives the same."""

import logging
import sys
import warnings

import pytest
import torch
from torch import nn

from lightning_compress.deploy import export
from lightning_compress.deploy.graph_passes.rounding import dequantize_for_each
from lightning_compress.deploy.graph_passes.weights import fold_constants
from lightning_compress.deploy.runtimes import ExecuTorch
from lightning_compress.deploy.writers import executorch
from lightning_compress.deploy.writers.executorch import ExecuTorchProgram
from lightning_compress.lowering.modules import lower
from lightning_compress.quantization import QATCallback, profiles
from lightning_compress.quantization.activations.quantizers import Place, quantizers_of
from tests.support.classifiers import Classifier, Conv, fit, loader

IMAGES = torch.cat([x for x, _ in loader()])


@pytest.fixture(scope="module")
def quantized():
    torch.manual_seed(0)
    module = Conv()
    fit(module, QATCallback(profile=profiles.Mobile()))
    return module.eval()


@torch.no_grad()
def test_a_quantized_module_computes_in_integers(quantized, tmp_path, capfd):
    """The reference sums integers exactly, as the kernels do."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = export(quantized, tmp_path / "m.pte", IMAGES[:3])
    runtime = ExecuTorch()
    operators = runtime.operators(path)
    assert (operators.layers, operators.floating) == (10, ())
    (logits,) = runtime.load(path)([IMAGES])
    expected, exact = quantized(IMAGES), lower(quantized, (IMAGES[:2],), exact=True)(IMAGES)
    assert torch.equal(logits.argmax(1), expected.argmax(1))
    step = quantizers_of(quantized)[Place("net", "output")].scale
    assert ((logits - exact).abs() < 0.01 * step).float().mean() > 0.98
    assert (logits - exact).abs().max() < 1.01 * step
    assert capfd.readouterr().err == ""
    assert logging.root.manager.disable == disabled


@torch.no_grad()
def test_a_free_batch_has_a_largest_size(tmp_path):
    module = Classifier().eval()
    path = export(module, tmp_path / "m.pte", IMAGES[:1], writer=ExecuTorchProgram(largest_batch=5))
    method = _method(path)
    for count in (1, 3, 5):
        torch.testing.assert_close(method.execute([IMAGES[:count]])[0], module(IMAGES[:count]), rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError):
        method.execute([IMAGES[:6]])
    (logits,) = ExecuTorch().load(path)([IMAGES[:12]])  # in parts
    torch.testing.assert_close(logits, module(IMAGES[:12]), rtol=1e-4, atol=1e-5)
    assert len(ExecuTorch().operators(path).floating) == 2
    with pytest.raises(ValueError, match="need largest_batch >= 1, got largest_batch=0"):
        ExecuTorchProgram(largest_batch=0)


def _method(path):
    from executorch.runtime import Runtime

    return Runtime.get().load_program(path).load_method("forward")


@torch.no_grad()
def test_layers_that_stay_float_are_named(tmp_path):
    module = Classifier()
    fit(module, QATCallback())
    with pytest.warns(UserWarning, match=r"computes layers of m.pte in float, .*their outputs: net.3\. .*Mobile\(\)"):
        path = export(module.eval(), tmp_path / "m.pte", IMAGES[:1])
    operators = ExecuTorch().operators(path)
    assert (operators.layers, len(operators.floating)) == (1, 1)
    assert torch.equal(ExecuTorch().load(path)([IMAGES])[0].argmax(1), module(IMAGES).argmax(1))


class Answers(nn.Module):
    """Several inputs, an argument that is no tensor, and two outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, one, two, double=False):
        return {"scores": self.layer(one - two) * (2 if double else 1), "sum": one + two}


def test_several_inputs_and_outputs(tmp_path):
    one, two = torch.rand(2, 3, 4).unbind()
    module = Answers().eval()
    path = export(module, tmp_path / "m.pte", {"two": two, "double": True, "one": one})
    given = ExecuTorch().load(path)([two, one])
    for have, want in zip(given, module(one, two, double=True).values(), strict=True):
        torch.testing.assert_close(have, want)


class Singular(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x)


def test_an_operation_that_executorch_lacks_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"need operations that ExecuTorch computes to write m.pte, got .*svd"):
        export(Singular(), tmp_path / "m.pte", torch.rand(1, 3, 3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore:ExecuTorch computes layers")
def test_a_file_that_computes_something_else_is_refused(tmp_path, monkeypatch):
    """XNNPACK takes codes of eight bits for signed ones, and says nothing."""
    module = Classifier()
    fit(module, QATCallback())
    monkeypatch.setattr("lightning_compress.deploy.writers.executorch._ROUNDING", ())
    monkeypatch.setattr("lightning_compress.deploy.writers.executorch._CONSTANTS", (fold_constants,))
    with pytest.raises(ValueError, match="need m.pte to compute the same as the quantized module"):
        export(module, tmp_path / "m.pte", IMAGES[:3])
    assert list(tmp_path.iterdir()) == []


def test_half_precision_is_refused(tmp_path):
    module = Classifier()
    fit(module, QATCallback())
    with pytest.raises(ValueError, match=r"need a quantized module in float32 to write .pte, got one in torch.float16"):
        export(module.half(), tmp_path / "m.pte", IMAGES[:1].half())


def test_without_its_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "executorch", None)
    with pytest.raises(
        ImportError, match=r"need executorch to write .pte: pip install 'lightning-compress\[executorch\]'"
    ):
        export(nn.Linear(2, 2), tmp_path / "m.pte", torch.ones(1, 2))


class Gated(nn.Module):
    """Layers with integers and a product in float read the same value."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
        self.gate, self.last = nn.Conv2d(4, 4, 1), nn.Linear(144, 10)

    def forward(self, x):
        x = self.first(x)
        return self.last((x * self.gate(x).sigmoid()).flatten(1))


@torch.no_grad()
def test_integers_and_floats_may_read_the_same_value(tmp_path, monkeypatch):
    module = Classifier(Gated())
    fit(module, QATCallback(profile=profiles.Mobile()))
    path = export(module.eval(), tmp_path / "m.pte", IMAGES[:1])
    assert ExecuTorch().operators(path).layers == 3
    assert torch.equal(ExecuTorch().load(path)([IMAGES])[0].argmax(1), module(IMAGES).argmax(1))
    passes = [one for one in executorch._CONSTANTS if one is not dequantize_for_each]
    monkeypatch.setattr(executorch, "_CONSTANTS", passes)
    with pytest.raises(ValueError, match="need operations that ExecuTorch computes to write other.pte, got Runtime"):
        export(module, tmp_path / "other.pte", IMAGES[:1])
    assert [file.name for file in tmp_path.iterdir()] == ["m.pte"]
