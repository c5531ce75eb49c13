import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from lightning_compress import PruningCallback
from lightning_compress.adapters import additive_paths
from lightning_compress.archive import inspect_archive, save_archive
from lightning_compress.macs import count_macs
from lightning_compress.report import CompressionReport, ModelProfile, profile
from lightning_compress.report.measures.profiles import shipped_macs
from lightning_compress.timing import Latency
from tests.support.toys import Adapted, build, digits, fit


def model():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))
    with torch.no_grad():
        net[3].weight.mul_(8).round_().div_(8)
        net[3].weight[0] = 0
    return net


def test_tensors_against_numpy():
    net = model()
    layers = {layer.name: layer for layer in profile(net).layers}
    assert layers.keys() == dict(net.named_parameters()).keys()
    for name, parameter in net.named_parameters():
        array = parameter.detach().numpy()
        layer = layers[name]
        assert layer.shape == array.shape
        assert layer.parameters == array.size
        assert layer.nonzeros == np.count_nonzero(array)
        assert layer.distinct == len(np.unique(array))
        assert layer.state_bytes == array.nbytes


def test_complex_weights_are_weighed():
    net = nn.Module()
    net.filter = nn.Parameter(torch.tensor([[1 + 2j, 1 + 3j], [1 + 2j, 0j]]))
    net.empty = nn.Parameter(torch.empty(0, dtype=torch.complex64))
    one, none = profile(net).layers
    assert (one.nonzeros, one.distinct, one.state_bytes) == (3, 3, 32)
    assert (none.nonzeros, none.distinct, none.state_bytes) == (0, 0, 0)


def test_totals_are_those_of_the_files(tmp_path):
    net = model()
    weighed = profile(net)
    save_archive(net.state_dict(), tmp_path / "m.lcz")
    assert weighed.archive_bytes == (tmp_path / "m.lcz").stat().st_size
    assert weighed.state_bytes == sum(tensor.numpy().nbytes for tensor in net.state_dict().values())
    assert weighed.parameters == sum(p.numel() for p in net.parameters())
    zeros = sum(int((p == 0).sum()) for p in net.parameters())
    assert weighed.sparsity == pytest.approx(zeros / weighed.parameters)


def test_tied_weights_are_weighed_once():
    net = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    net[1].weight = net[0].weight
    weighed = profile(net)
    assert [layer.name for layer in weighed.layers] == ["0.weight"]
    assert weighed.state_bytes == 256


def test_an_empty_model_has_no_zeros():
    assert profile(nn.Identity()) == ModelProfile((), 0, profile(nn.Identity()).archive_bytes)
    assert profile(nn.Identity()).sparsity == 0.0


def test_what_is_no_tensor_is_refused():
    class Extra(nn.Linear):
        def get_extra_state(self):
            return "text"

    with pytest.raises(TypeError, match="need tensors by name, got str for '_extra_state'"):
        profile(Extra(2, 2))


def test_round_trip_through_primitives():
    net = model()
    weighed = ModelProfile(
        profile(net).layers, state_bytes=1, archive_bytes=2, macs=count_macs(net, torch.ones(1, 1, 8, 8))
    )
    assert ModelProfile.from_dict(asdict(weighed)) == weighed
    assert ModelProfile.from_dict(asdict(profile(net))) == profile(net)


def test_adapters_count_as_the_merged_layers_that_ship():
    module, plain = build(kind=Adapted), build()
    counted, expected = shipped_macs(module, digits()[0][:1]), count_macs(plain, digits()[0][:1])
    assert counted.total == expected.total < count_macs(module, digits()[0][:1]).total
    assert counted.layers == {f"{name}.base": count for name, count in expected.layers.items()}
    assert [layer.name for layer in profile(module).layers if layer.name.startswith("net.0.")] == [
        "net.0.base.weight",
        "net.0.base.bias",
    ]


def test_a_report_does_not_count_merging_as_compression(tmp_path, monkeypatch):
    timed = []

    def measure(modules, example):
        timed.extend(len(additive_paths(module)) for module in modules)
        return [Latency(0.2, 0.1, 2.0, "cpu") for _ in modules]

    monkeypatch.setattr("lightning_compress.report.measures.bench.measure_latencies", measure)
    fit(build(kind=Adapted), PruningCallback(0.5), CompressionReport(tmp_path), max_steps=4)
    values = json.loads((tmp_path / "report.json").read_text())
    assert values["before"]["macs"] == values["after"]["macs"]
    assert timed == [0, 0]


def test_layers_share_the_file(tmp_path):
    net = model()
    path = tmp_path / "m.lcz"
    save_archive(net.state_dict(), path)
    stored = {tensor.name: tensor.bytes for tensor in inspect_archive(path).tensors}
    assert {layer.name: layer.archive_bytes for layer in profile(net).layers} == {
        name: round(stored[name]) for name, _ in net.named_parameters()
    }
