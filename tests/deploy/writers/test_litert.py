"""LiteRT: what was trained in integers runs in integer kernels, and gives the same."""

import logging
import os
import sys
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from lightning_compress.deploy import export, flatbuffers
from lightning_compress.deploy.runtimes import TFLM, LiteRT
from lightning_compress.deploy.writers.litert import LiteRTModel
from lightning_compress.lowering.modules import lower
from lightning_compress.quantization import QATCallback, profiles, scales
from lightning_compress.quantization.activations.quantizers import Place, quantizers_of
from tests.support.classifiers import Block, Classifier, fit, loader

IMAGES = torch.cat([x for x, _ in loader()])


class Phone(nn.Module):
    """A residual block, a depthwise convolution, pools of three kinds, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.block = Block(8, 16, 1)
        self.pool = nn.MaxPool2d(3, 1, 1)
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, 1, 1, groups=16), nn.BatchNorm2d(16), nn.ReLU6())
        self.average, self.last = nn.AvgPool2d(2), nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU())
        self.fc = nn.Linear(16, 10)

    def forward(self, x):
        x = self.depthwise(self.pool(self.block(self.stem(x))))
        return self.fc(self.last(self.average(x)).mean((2, 3)))


@pytest.fixture(scope="module")
def quantized():
    torch.manual_seed(0)
    module = Classifier(Phone())
    fit(module, QATCallback(profile=profiles.Mobile()), max_epochs=6)
    return module.eval()


@torch.no_grad()
def test_a_quantized_module_computes_in_integers(quantized, tmp_path, capfd):
    """The reference sums integers exactly, as the kernels do."""
    disabled = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = export(quantized, tmp_path / "m.tflite", IMAGES[:3])
        operators = LiteRT().operators(path)
        runtimes = (LiteRT(), LiteRT(reference=True), TFLM())
        outputs = [runtime.load(path)([IMAGES])[0] for runtime in runtimes]
        memory = TFLM().memory(path)
    assert capfd.readouterr() == ("", "")
    assert 2 * 16 * 8 * 8 < memory < 16_000  # the largest two maps, and descriptions
    assert logging.root.manager.disable == disabled
    assert not [name for name in os.environ if name.startswith("LITERT")]
    assert (operators.layers, operators.floating) == (7, ())  # the means that are written as convolutions are none
    expected, exact = quantized(IMAGES), lower(quantized, (IMAGES[:2],), exact=True)(IMAGES)
    step = quantizers_of(quantized)[Place("net", "output")].scale
    assert len(expected.argmax(1).unique()) > 5
    for given in outputs:
        assert (given.argmax(1) == expected.argmax(1)).float().mean() > 0.99
        assert ((given - exact).abs() < 0.01 * step).float().mean() > 0.9
        assert (given - exact).abs().max() < 2.01 * step
    model = flatbuffers.read(path)
    assert set(flatbuffers.names_of_float_ends(model)) == {"serving_default_args_0", "serving_default_output_0_output"}
    assert sum(tensor.type == 0 for tensor in model.subgraphs[0].tensors) == 2  # floats


@torch.no_grad()
def test_a_file_may_take_and_give_codes(quantized, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    path = export(quantized, tmp_path / "m.tflite", IMAGES[:1], writer=LiteRTModel(integer_ends=True))
    interpreter = Interpreter(str(path))
    ends = *interpreter.get_input_details(), *interpreter.get_output_details()
    assert [end["dtype"] for end in ends] == [np.int8, np.int8]
    assert all(tensor.type != 0 for tensor in flatbuffers.read(path).subgraphs[0].tensors)
    for runtime in (LiteRT(), TFLM()):
        (logits,) = runtime.load(path)([IMAGES])  # rounded on the way
        assert (logits.argmax(1) == quantized(IMAGES).argmax(1)).float().mean() > 0.99
    with pytest.raises(ValueError, match="need quantizers at all .* for integer_ends, got floats: serv"):
        export(nn.Linear(2, 2), tmp_path / "m.tflite", torch.ones(1, 2), writer=LiteRTModel(integer_ends=True))
    with pytest.raises(TypeError, match="need integer_ends as True or False, got 1"):
        LiteRTModel(integer_ends=1)
    assert interpreter.get_input_details()


class Sequences(nn.Module):
    """A convolution over time, and one whose weight is left alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(8, 16, 3, padding=2, dilation=2), nn.BatchNorm1d(16), nn.ReLU())
        self.second, self.relu = nn.Conv1d(16, 16, 3), nn.ReLU()
        self.pool, self.fc = nn.MaxPool1d(2), nn.Linear(48, 10)

    def forward(self, x):
        return self.fc(self.pool(self.relu(self.second(self.first(x[:, 0])))).flatten(1))


@torch.no_grad()
def test_layers_that_stay_float_are_named(tmp_path):
    module = Classifier(Sequences())
    fit(module, QATCallback(profile=profiles.Mobile(), exclude=("net.second.*",)))
    with pytest.warns(UserWarning, match=r"LiteRT computes layers of m.tflite in float, .*each output: net.second$"):
        path = export(module.eval(), tmp_path / "m.tflite", IMAGES[:1])
    operators = LiteRT().operators(path)
    assert (operators.layers, len(operators.floating)) == (2, 1)
    (logits,) = LiteRT().load(path)([IMAGES])
    assert (logits.argmax(1) == module(IMAGES).argmax(1)).float().mean() > 0.99


class Joined(nn.Module):
    def forward(self, x):
        return torch.cat([x + float(number) for number in range(12)], 1)


def test_an_operation_that_a_microcontroller_lacks_is_named(tmp_path, capfd):
    """Its kernels join ten tensors at most."""
    path, x = export(Joined(), tmp_path / "m.tflite", torch.ones(1, 2)), torch.ones(1, 2)
    assert LiteRT().load(path)([x])[0].shape == (1, 24)
    with pytest.raises(ValueError, match=r"need operations that TensorFlow Lite Micro .*m.tflite, got .*kMaxInputNum"):
        TFLM().load(path)
    assert capfd.readouterr().err == ""


class Answers(nn.Module):
    """Several inputs, one of integers and one that is no tensor, and outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.layer = nn.Embedding(5, 4), nn.Linear(4, 3)

    def forward(self, one, words, double=False):
        rows = self.table(words).sum(1)
        return {"scores": self.layer(one - rows) * (2 if double else 1), "again": one, "best": rows.argmax(1)}


@torch.no_grad()
def test_several_inputs_and_outputs(tmp_path):
    one, words = torch.rand(2, 4), torch.tensor([[0, 1, 2], [4, 4, 3]])
    module = Answers().eval()
    path = export(module, tmp_path / "m.tflite", {"words": words, "double": True, "one": one})
    for runtime in (LiteRT(), TFLM()):
        given = runtime.load(path)([words, one])
        for have, want in zip(given, module(one, words, double=True).values(), strict=True):
            torch.testing.assert_close(have, want, check_dtype=False)


def test_a_module_that_was_trained_for_another_profile_is_refused(tmp_path):
    for callback, error in (
        (
            QATCallback(),
            r"need a quantizer .* the last layer .*, got none at net.3: .*profiles.Mobile\(\)",
        ),
        (QATCallback(scale=scales.minmax), r"need weights with zero points of 0 for Mobile, got .*profiles.Mobile\(\)"),
    ):
        module = Classifier()
        fit(module, callback)
        with pytest.raises(ValueError, match=error):
            export(module, tmp_path / "m.tflite", IMAGES[:1])
    with pytest.raises(ValueError, match="need a quantized module in float32 .* got one in torch.float16"):
        export(module.half(), tmp_path / "m.tflite", IMAGES[:1].half())
    assert list(tmp_path.iterdir()) == []


def test_ranges_for_each_row_compute_in_float(tmp_path):
    module = Classifier()
    fit(module, QATCallback(profile=profiles.Dynamic()))
    with pytest.warns(UserWarning, match="LiteRT computes layers of m.tflite in float"):
        path = export(module.eval(), tmp_path / "m.tflite", IMAGES[:1])
    expected = module(IMAGES).detach()
    for runtime in (LiteRT(), LiteRT(reference=True)):
        (got,) = runtime.load(path)([IMAGES])
        assert (got.argmax(1) == expected.argmax(1)).float().mean() > 0.99
        assert (got - expected).abs().mean() < 0.01 * expected.abs().max()


class Singular(nn.Module):
    def forward(self, x):
        return torch.linalg.svdvals(x)


def test_an_operation_that_litert_lacks_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(ValueError, match=r"need operations that LiteRT computes to write m.tflite, got .*svd"):
        export(Singular(), tmp_path / "m.tflite", torch.rand(1, 3, 3))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("reference", [False, True])
def test_a_file_that_computes_something_else_is_refused(reference, tmp_path, monkeypatch):
    load = LiteRT.load

    def other(self, path):
        run = load(self, path)
        return lambda inputs: [output + (self.reference is reference) for output in run(inputs)]

    monkeypatch.setattr(LiteRT, "load", other)
    named = "m.tflite, by reference kernels," if reference else "m.tflite"
    with pytest.raises(ValueError, match=f"need {named} to compute the same as the module within .*, got a difference"):
        export(nn.Linear(2, 2), tmp_path / "m.tflite", torch.ones(1, 2))
    assert list(tmp_path.iterdir()) == []


def test_without_its_extra_the_error_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(
        ImportError, match=r"need litert_torch to write .tflite: pip install 'lightning-compress\[litert\]'"
    ):
        export(nn.Linear(2, 2), tmp_path / "m.tflite", torch.ones(1, 2))
