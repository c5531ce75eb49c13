"""The reasons why layers stay float, and remedies that help."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lightning_compress.deploy import export
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.quantization import QATCallback, profiles
from tests.support.classifiers import Classifier, fit, loader

IMAGES = next(iter(loader()))[0]
ROUNDED = profiles.OnnxRuntime(round_outputs=True)


class Joined(nn.Module):
    """Two layers, one with a ReLU, whose outputs are joined."""

    def __init__(self, relu) -> None:
        super().__init__()
        self.one, self.other, self.head = nn.Linear(64, 16), nn.Linear(64, 16), nn.Linear(32, 10)
        self.relu = relu

    def forward(self, images):
        flat = images.flatten(1)
        return self.head(torch.cat([self.one(flat), self.relu(self.other(flat))], 1))


class Last(nn.Module):
    """A convolution whose output is averaged, and the output of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 10, 3)

    def forward(self, images):
        return self.last(F.relu(self.conv(images))).mean((2, 3))


class Repeated(nn.Module):
    """A layer that is used twice, with a ReLU between."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.head = nn.Linear(64, 64), nn.Linear(64, 10)

    def forward(self, images):
        return self.head(F.relu(self.twice(F.relu(self.twice(images.flatten(1))))))


class Enlarged(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.larger, self.head = nn.ConvTranspose2d(1, 2, 2, 2), nn.Linear(512, 10)

    def forward(self, images):
        return self.head(F.relu(self.larger(images)).flatten(1))


def told(net, callback, folder):
    """The warning, and the layers in float."""
    module = Classifier(net)
    fit(module, callback)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        path = export(module.eval(), folder / "m.onnx", IMAGES[:2])
    return "".join(str(one.message) for one in warned if "in float" in str(one.message)), OnnxRuntime().operators(path)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (lambda: Joined(nn.ReLU()), "nothing quantizes their outputs: net.other. To mend it"),
        (Last, "nothing quantizes their outputs: net.last. To mend it"),
        (Repeated, "with which they are not fused: net.twice. To mend it"),
    ],
    ids=["joined", "last", "repeated"],
)
def test_outputs_without_quantizers_get_some(net, reason, tmp_path):
    text, operators = told(net(), QATCallback(), tmp_path)
    assert reason in text
    assert "profiles.OnnxRuntime(round_outputs=True)" in text
    assert len(operators.floating) == 1
    text, operators = told(net(), QATCallback(profile=ROUNDED), tmp_path)
    assert (text, operators.floating) == ("", ())


def test_a_quantizer_reaches_the_output_of_a_module_alone(tmp_path):
    with pytest.warns(UserWarning, match=r"outputs of net.other: .* hand their outputs to a function, such as F.relu"):
        text, _ = told(Joined(F.relu), QATCallback(profile=ROUNDED), tmp_path)
    assert "such as nn.ReLU() in place of F.relu" in text


def test_where_nothing_helps_nothing_is_advised(tmp_path):
    text, _ = told(Enlarged(), QATCallback(), tmp_path)
    assert text.endswith("though activations are quantized: there is no integer kernel of ConvTranspose: net.larger")


def test_layers_that_are_left_out_are_said_to_be(tmp_path):
    text, _ = told(Joined(nn.ReLU()), QATCallback(exclude=("net.head",)), tmp_path)
    assert "their weights are not quantized: net.head" in text
