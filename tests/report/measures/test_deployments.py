"""Deployments: the file beside the dense model, in every runtime."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from lightning_compress import PruningCallback
from lightning_compress.deploy import export
from lightning_compress.deploy.writers.litert import LiteRTModel
from lightning_compress.deploy.writers.onnx import Onnx
from lightning_compress.quantization import BinarizationCallback, QATCallback, profiles
from lightning_compress.report import CompressionReport
from lightning_compress.report.comparisons import Comparison, remarks
from lightning_compress.report.measures.deployments import Deployment, measure_deployments
from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile
from lightning_compress.report.views.tables import tables
from lightning_compress.timing import Latency
from tests.support.classifiers import Classifier, Conv, fit, loader

IMAGES = torch.cat([x for x, _ in loader()])
SLOW, FAST = Latency(2e-3, 1.9e-3, 2.1e-3, "cpu"), Latency(1e-3, 0.9e-3, 1.1e-3, "cpu")


def instant(runs, device):
    for run in runs:
        run()
    return [Latency(0.2, 0.1, 2.0, device) for _ in runs]


@pytest.fixture(autouse=True)
def _timing_takes_no_time(monkeypatch):
    for module in ("report.measures.deployments", "timing"):
        monkeypatch.setattr(f"lightning_compress.{module}.time_in_turns", instant)


def test_what_the_runtimes_compute_is_compared_with_torch(tmp_path):
    dense, module = Conv(), Conv()
    fit(module, QATCallback(7))  # with 8 bits kernels without VNNI saturate
    path = export(module.eval(), tmp_path / "m.onnx", IMAGES[:1])
    found = measure_deployments(dense, module, path, IMAGES[:1], IMAGES, Onnx())
    assert [one.runtime for one in found] == ["ONNX Runtime", "OpenVINO"]
    for one in found:
        assert (one.integer, one.floating, one.samples) == (10, (), len(IMAGES))
        assert one.bytes == path.stat().st_size < one.dense_bytes
        assert one.agreement > 0.98
        assert 0 < one.difference < 0.01
    other = measure_deployments(dense, dense, path, IMAGES[:1], IMAGES, Onnx())[0]
    assert other.agreement < 0.9  # an untrained network's classes
    assert other.difference > 0.1


def test_phones_and_microcontrollers_run_the_same_file(tmp_path):
    module = Classifier()
    fit(module, QATCallback(profile=profiles.Mobile()))
    path = export(module.eval(), tmp_path / "m.tflite", IMAGES[:1])
    phone, micro = measure_deployments(Classifier(), module, path, IMAGES[:1], IMAGES, LiteRTModel())
    assert (phone.runtime, micro.runtime) == ("LiteRT", "TFLM")
    for one in (phone, micro):
        assert (one.integer, one.floating, one.samples) == (2, (), len(IMAGES))
        assert one.bytes < one.dense_bytes
        assert one.agreement > 0.99
    assert phone.latencies is not None
    assert phone.memory is None
    assert micro.latencies is micro.batch_latencies is None
    assert 500 < micro.memory < 10_000  # activations of some hundred bytes, and descriptions


def test_a_runtime_that_cannot_run_the_file_is_named(tmp_path, monkeypatch):
    def fail(self, path):
        raise RuntimeError("no such operator\nand more")

    monkeypatch.setattr("lightning_compress.deploy.runtimes.OpenVINO.load", fail)
    module = Classifier()
    path = export(module, tmp_path / "m.onnx", IMAGES[:1])
    with pytest.warns(UserWarning, match="OpenVINO does not run m.onnx: RuntimeError: no such operator$"):
        found = measure_deployments(module, module, path, IMAGES[:1], IMAGES, Onnx())
    assert [one.runtime for one in found] == ["ONNX Runtime"]


class Scores(nn.Module):
    """Two outputs: no classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(64, 4)

    def forward(self, x):
        y = self.fc(x.flatten(1))
        return y, y.sum(1)


def test_what_is_no_classifier_has_no_classes(tmp_path):
    module = Scores()
    path = export(module, tmp_path / "m.onnx", IMAGES[:1])
    (first, _) = measure_deployments(module, module, path, (IMAGES[:1],), (IMAGES[:7],), Onnx())
    assert (first.agreement, first.samples) == (None, 7)
    assert first.difference < 1e-6


@pytest.mark.parametrize("example", [None, torch.zeros(1, 1, 8, 8)], ids=["of the batch", "given"])
def test_the_callback_writes_and_measures_what_formats_ask_for(example, tmp_path):
    module = Conv()
    report = CompressionReport(tmp_path, formats=[".onnx", ".pt2", ".lcz"], example_input=example)
    fit(module, report, QATCallback(7))  # with 8 bits kernels without VNNI saturate
    assert all((tmp_path / f"model{suffix}").exists() for suffix in (".onnx", ".pt2", ".lcz"))
    values = json.loads((tmp_path / "report.json").read_text())
    assert [one["runtime"] for one in values["deployments"]] == ["ONNX Runtime", "OpenVINO"]
    assert values["deployments"][0]["samples"] == 16
    bits = {layer["name"]: layer["bits"] for layer in values["after"]["layers"]}
    assert bits["net.fc.weight"] == 7
    assert bits["net.fc.bias"] == 32
    text = (tmp_path / "report.md").read_text()
    assert "| model.onnx in ONNX Runtime |" in text
    assert "10 / 10" in text


@pytest.mark.parametrize(
    ("callback", "bits"),
    [(BinarizationCallback(), 1), (QATCallback(2, activation_bits=None), 2), (QATCallback(5, activation_bits=None), 5)],
)
def test_bits_of_a_weight(callback, bits, tmp_path):
    fit(Classifier(), CompressionReport(tmp_path, formats=[]), callback)
    layers = json.loads((tmp_path / "report.json").read_text())["after"]["layers"]
    assert [layer["bits"] for layer in layers] == [bits, 32, bits, 32]


def test_no_file_is_asked_for(tmp_path):
    fit(Classifier(), CompressionReport(tmp_path, formats=[]), PruningCallback(0.5))
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.json", "report.md", "pictures"}


def test_the_report_comes_before_the_error_of_a_file(tmp_path, monkeypatch):
    def refuse(module, path, example, writer):
        raise ValueError("need something else")

    monkeypatch.setattr("lightning_compress.report.views.outputs.export", refuse)
    with pytest.raises(ValueError, match="need something else"):
        fit(Classifier(), CompressionReport(tmp_path), PruningCallback(0.5))
    assert (tmp_path / "report.md").exists()


def test_wrong_formats_are_refused():
    with pytest.raises(
        ValueError, match=r"need formats out of .lcz, .*, .safetensors, .tflite, got 'onnx'; did you mean '.onnx'\?"
    ):
        CompressionReport(formats=["onnx"])
    with pytest.raises(TypeError, match="need formats as suffixes or writers, got 3"):
        CompressionReport(formats=[3])
    with pytest.raises(TypeError, match=r"need formats as a list, got '.onnx': write \['.onnx'\]"):
        CompressionReport(formats=".onnx")


def test_the_table_and_the_remarks():
    layer = LayerProfile("fc.weight", (4, 4), 16, 16, 64, 90)
    before, after = (
        ModelProfile((layer,), 64, 90),
        ModelProfile((LayerProfile("fc.weight", (4, 4), 16, 9, 64, 40, 8),), 64, 40, activations=1),
    )
    found = Deployment("m.onnx", "ORT", 100, 300, 2, ("matmul",), (SLOW, FAST), (FAST, FAST), 64, 0.9844, 0.001)
    comparison = Comparison(before, after, (FAST, SLOW), deployments=(found,))
    (table,) = [table for table in tables(comparison) if table.title == "Deployment"]
    assert table.rows == (
        ("m.onnx in ORT", "300 → 100", "2 / 3", "example", "2.000 → 1.000", "2.00x faster", "", ""),
        ("", "", "", "64 samples", "1.000 → 1.000", "no difference", "98.44%", "0.10%"),
    )
    simulated = replace(found, runtime="TFLM", latencies=None, batch_latencies=None, memory=5000)
    (table,) = [table for table in tables(replace(comparison, deployments=(simulated,))) if table.title == "Deployment"]
    assert table.rows == (
        ("m.onnx in TFLM", "300 → 100", "2 / 3", "example", "", "", "", ""),
        ("", "5,000 of memory", "", "64 samples", "", "", "98.44%", "0.10%"),
    )
    assert "faster" not in " ".join(remarks(replace(comparison, latencies=None, deployments=(simulated,))))
    said = " ".join(remarks(comparison))
    assert "ORT computes these layers of m.onnx in float: matmul." in said
    assert "PyTorch simulates integers in float, 2.00 times the time of the dense model" in said
    assert "Latency is the median (and quartiles) of m.onnx in ORT, before and after in turns. The difference" in said
    alone = replace(comparison, latencies=(SLOW, SLOW), after=replace(after, activations=0))
    assert "quartiles overlap" not in " ".join(remarks(alone))  # those of PyTorch, which no row shows
    whole = {row[0]: row[1:] for row in tables(comparison)[0].rows}
    assert whole["latency of m.onnx in ORT, ms"] == ("2.000 (1.900-2.100)", "1.000 (0.900-1.100)", "2.00x faster")
    whole = {row[0]: row[1:] for row in tables(replace(comparison, deployments=()))[0].rows}
    assert whole["latency"][1].startswith("not measured: PyTorch simulates the integers")


class Recurrent(Classifier):
    """Most of its multiply-accumulates are those of a GRU, whose weights stay floats."""

    def __init__(self):
        super().__init__(nn.Linear(32, 10))
        self.rnn = nn.GRU(8, 32, batch_first=True)

    def forward(self, x):
        return self.net(self.rnn(x.reshape(-1, 8, 8))[0][:, -1])


@pytest.mark.parametrize(
    ("net", "callback", "said", "not_said"),
    [
        (Classifier, QATCallback(8), "At most 100% of the MACs run in integers", "Weights alone"),
        (Recurrent, QATCallback(8), "At most 1% of the MACs run in integers", "Weights alone"),  # 320 of 31,040
        (Classifier, QATCallback(4, activation_bits=None), "Weights alone are integers", "PyTorch simulates"),
        (Classifier, BinarizationCallback(), "Weights alone are integers", "PyTorch simulates"),
    ],
    ids=["all", "GRU", "weights alone", "binary"],
)
def test_integers_are_claimed_by_macs(net, callback, said, not_said, tmp_path):
    report = CompressionReport(tmp_path, formats=[])
    fit(net(), report, callback)
    told = " ".join(remarks(report.result))
    assert said in told
    assert not_said not in told
    assert "compute in integers" not in told


def test_a_wrong_example_is_refused():
    with pytest.raises(TypeError, match="need example_input as a tensor, a tuple .* mapping .*, got 'images'"):
        CompressionReport(example_input="images")
