"""``inspect`` shows the contents of files, runs nothing in them, and prints their names as text."""

import json
import re
import sys

import pytest
import torch
from torch import nn

from lightning_compress import QATCallback, export
from lightning_compress.archive import save_archive
from lightning_compress.cli import main
from lightning_compress.deploy.writers.litert import LiteRTModel
from lightning_compress.quantization import profiles
from tests.support.toys import build, fit


def command(monkeypatch, line):
    """Type a line into the shell."""
    monkeypatch.setattr(sys, "argv", line.split())
    monkeypatch.setattr(sys, "path", list(sys.path))
    main()


def test_inspect_lists_the_tensors(tmp_path, monkeypatch, capsys):
    name = "a.rather.long.name.that.a.narrow.table.would.break.weight"
    save_archive({name: torch.eye(100), "scale": torch.tensor(2.0)}, tmp_path / "m.lcz")
    command(monkeypatch, f"lightning-compress inspect {tmp_path / 'm.lcz'}")
    out = capsys.readouterr().out
    assert all(word in out for word in (name, "100 x 100", "grid", "scalar", "40,004 bytes in memory"))
    assert f"{(tmp_path / 'm.lcz').stat().st_size:,}" in out


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no such file"), (b"model: project.Net", "this is not an archive")],
    ids=["none", "foreign"],
)
def test_inspect_refuses_what_is_no_archive(content, said, tmp_path, monkeypatch):
    path = tmp_path / "m.lcz"
    if content:
        path.write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        command(monkeypatch, f"lightning-compress inspect {path}")
    assert said in str(stopped.value.code)


def test_inspect_prints_names_as_text(tmp_path, capsys):
    names = "net[/bold].weight", "[red]hidden[/red]", "a\x1b]0;owned\x07\x1b[2Jb", "line\nbreak", "\u202egnp", "über"
    save_archive({name: torch.zeros(3) for name in names}, tmp_path / "m.lcz", {"\x1b[1m[/x]": "[red]\x9bk", "bits": 8})
    main(["inspect", str(tmp_path / "m.lcz")])
    shown = capsys.readouterr().out
    for plain in ("net[/bold].weight", "[red]hidden[/red]", r"a\x1b]0;owned\x07\x1b[2Jb", r"line\nbreak", "über"):
        assert plain in shown
    for plain in (r"\u202egnp", r"\x1b[1m[/x]", r"[red]\x9bk", "bits", "8", "the state dict alone", "is the model"):
        assert plain in shown
    assert all(letter.isprintable() or letter == "\n" for letter in shown)


def test_an_archive_as_json(tmp_path, capsys):
    save_archive({"a.weight": torch.eye(100)}, tmp_path / "m.lcz", {"bits": 8})
    main(["inspect", str(tmp_path / "m.lcz"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["file_bytes"] == (tmp_path / "m.lcz").stat().st_size
    assert found["records"] == {"bits": "8"}
    assert [(one["name"], one["shape"], one["form"]) for one in found["tensors"]] == [("a.weight", [100, 100], "grid")]


class RanError(Exception):
    pass


class Bomb:
    def __reduce__(self):
        return _burst, ()


def _burst():
    raise RanError


def test_a_checkpoint(tmp_path, capsys):
    """Seven of eight weights are zero; an object in it is not built."""
    weight = torch.zeros(2, 4)
    weight[1, 2] = 0.5
    content = {"state_dict": {"net.weight": weight}, "epoch": 3, "hyper_parameters": {"lr": 0.1}, "own": Bomb()}
    torch.save(content, tmp_path / "a.ckpt")
    main(["inspect", str(tmp_path / "a.ckpt")])
    out = capsys.readouterr().out
    assert all(word in out for word in ("net.weight", "2 x 4", "87.5%", "hyper_parameters.lr", "epoch", "not built"))
    main(["inspect", str(tmp_path / "a.ckpt"), "--json"])
    found = json.loads(capsys.readouterr().out)
    row = {"name": "net.weight", "shape": [2, 4], "dtype": "float32", "zeros": 0.875, "distinct": 2, "bytes": 32}
    assert found["tensors"] == [row]
    assert found["hyperparameters"] == {"lr": "0.1"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_onnx_file(tmp_path, capsys):
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    export(net, tmp_path / "a.onnx", torch.zeros(1, 4))
    main(["inspect", str(tmp_path / "a.onnx")])
    out = capsys.readouterr().out
    assert all(word in out for word in ("opset", "2 Gemm, 1 Relu", "0.weight", "float"))
    main(["inspect", str(tmp_path / "a.onnx"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["operators"] == {"Gemm": 2, "Relu": 1}
    assert sorted(one["shape"] for one in found["weights"] if len(one["shape"]) == 2) == [[2, 3], [3, 4]]


@pytest.mark.parametrize(
    ("name", "given", "answer", "products"),
    [
        ("a.pte", "0", "0", "FullyConnected"),
        ("a.tflite", "args_0", "output_0", "FullyConnected"),
        ("a.pt2", "input", "linear_1", "linear"),
    ],
)
def test_a_program(name, given, answer, products, tmp_path, capsys):
    """A file of two layers in float: ends, layers and weights as they were written."""
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    export(net, tmp_path / name, torch.zeros(1, 4))
    main(["inspect", str(tmp_path / name), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["file_bytes"] == (tmp_path / name).stat().st_size
    (taken,), (told,) = found["inputs"].items(), found["outputs"].items()
    assert (taken[0], told[0]) == (given, answer)
    assert re.fullmatch("float32, .* x 4", taken[1])
    assert re.fullmatch("float32, .* x 2", told[1])
    assert (found["integer_layers"], found["float_layers"]) == ({}, {products: 2})
    assert found["delegates"] == ({"XnnpackBackend": 1} if name == "a.pte" else {})
    assert [one["shape"] for one in found["weights"]] == ([[3, 4], [3], [2, 3], [2]] if name == "a.pt2" else [])
    main(["inspect", str(tmp_path / name)])
    out = capsys.readouterr().out
    assert all(re.search(text, out) for text in (f"2 {products}", f"input {given}", "layers in integers +none"))


def test_a_program_in_integers(tmp_path, capsys):
    """One matrix product in int8 for LiteRT, whose grids of input and output are shown."""
    module = build()
    fit(module, QATCallback(profile=profiles.Mobile()), max_epochs=1)
    export(module, tmp_path / "a.tflite", torch.zeros(1, 1, 8, 8), writer=LiteRTModel(integer_ends=True))
    main(["inspect", str(tmp_path / "a.tflite"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["integer_layers"] == {"DepthwiseConv2D": 1, "Conv2D": 1, "FullyConnected": 2}
    assert found["float_layers"] == {}
    assert re.fullmatch(r"int8, 1 x 1 x 8 x 8, scale [\d.e-]+, zero point -?\d+", *found["inputs"].values())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("m.pte", "need a program of ExecuTorch, got "),
        ("m.tflite", "need a model of LiteRT, got "),
        ("m.pt2", "need a program of torch.export, got "),
        ("m.ckpt", "need a checkpoint that the Trainer wrote, got "),
        ("m.onnx", "need an ONNX model, got "),
        ("m.bin", "need a file that ends in .lcz, .ckpt, .onnx, .pte, .tflite, .pt2, got "),
    ],
)
def test_a_file_of_another_kind_is_named(name, said, tmp_path):
    (tmp_path / name).write_bytes(b"\x00model")
    with pytest.raises(SystemExit) as stopped:
        main(["inspect", str(tmp_path / name)])
    assert str(stopped.value.code).startswith(f"lightning-compress: error: {said}{str(tmp_path / name)!r}")
