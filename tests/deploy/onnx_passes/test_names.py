"""Layers of an ONNX file, and of what runtimes make of it, have the paths of their modules as names."""

import warnings

import onnx
import pytest
import torch
from torch import nn

from lightning_compress.deploy import export
from lightning_compress.deploy.onnx_passes.names import LAYERS, origin
from lightning_compress.deploy.runtimes import OnnxRuntime, OpenVINO
from lightning_compress.quantization import QATCallback
from tests.support.classifiers import Classifier, fit, loader

IMAGES = next(iter(loader()))[0]


class Parts(nn.Module):
    """A convolution with a normalization, a layer that is used twice, attention, a recurrent layer, and a product."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.twice = nn.Linear(16, 16)
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.over = nn.LSTM(16, 16, batch_first=True)
        self.head = nn.Linear(16, 10)

    def forward(self, images):
        rows = self.stem(images).flatten(2)
        rows = torch.relu(self.twice(torch.relu(self.twice(rows))))
        rows = self.over(self.attention(rows, rows, rows)[0])[0]
        return self.head((rows @ rows.transpose(1, 2) @ rows).mean(1))


PATHS = [
    "net.stem.0",
    "net.twice",
    "net.twice#2",
    "net.attention",
    "net.attention#2",
    "net.attention#3",
    "net.attention.out_proj",
    "net.over",
    "net",
    "net#2",
    "net.head",
]


@pytest.fixture(scope="module", params=[False, True], ids=["float", "quantized"])
def written(request, tmp_path_factory):
    module = Classifier(Parts())
    if request.param:
        with pytest.warns(UserWarning, match="no quantizer reaches the inputs of net.attention.out_proj"):
            fit(module, QATCallback())
    path = tmp_path_factory.mktemp("files") / "m.onnx"
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        export(module.eval(), path, IMAGES[:2])
    return path, [str(one.message) for one in warned if "in float" in str(one.message)]


def test_nodes_have_the_paths_of_their_modules(written):
    nodes = [node for node in onnx.load(written[0]).graph.node if node.op_type in LAYERS]
    assert [node.name for node in nodes] == PATHS


@pytest.mark.parametrize("runtime", [OnnxRuntime(), OpenVINO()], ids=str)
def test_runtimes_name_what_they_compute_in_float_as_the_file_does(written, runtime):
    floating = runtime.operators(written[0]).floating
    assert set(floating) <= set(PATHS)
    assert len(set(floating)) == len(floating)


def test_the_warning_names_modules_and_reasons(written):
    for text in written[1]:
        check_text(text)


def check_text(text):
    assert "there is no integer kernel of LSTM: net.over" in text
    assert (
        "products of two activations, which no quantizer reaches: net.attention#2, net.attention#3, net, net#2" in text
    )
    assert "nothing quantizes their inputs: net.attention.out_proj" in text
    assert "node_" not in text


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("fused a", "a"),
        ("relu_nchwc", "a"),
        ("a#2/MatmulTransposeFusion//MatMulScaleFusion/", "a#2"),
        ("b/c/WithoutBiases", "b/c"),
        ("ab", "ab"),
    ],
)
def test_names_of_runtimes(name, layer):
    assert origin(name, {"a": "a", "relu": "a", "a#2": "a#2", "b/c": "b/c"}) == layer
