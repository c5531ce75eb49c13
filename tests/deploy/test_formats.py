"""Formats: a new one is a new file, or an object that is passed; every writer keeps the same promises."""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from lightning_compress import CompressionReport, QATCallback, export
from lightning_compress.deploy import Writer, writers
from lightning_compress.deploy.export import find_writer, find_writers
from lightning_compress.deploy.writers.archive import Archive
from lightning_compress.deploy.writers.programs import Program
from lightning_compress.quantization import profiles
from tests.support.classifiers import Classifier, fit

FILE = """
from dataclasses import dataclass
from pathlib import Path

from lightning_compress.deploy.checks import cpu_tensors
from lightning_compress.deploy.formats import ComputationWriter
from lightning_compress.example_inputs import call

__all__ = ["Script"]

import torch


@dataclass(frozen=True)
class Script(ComputationWriter):
    suffix = ".ts"
    packages = ("torch",)

    def write(self, module, example, path):
        torch.jit.trace(module, example).save(str(path))

    def run(self, example, path):
        return cpu_tensors(call(torch.jit.load(str(path)), example))
"""
pytestmark = pytest.mark.filterwarnings("ignore:Core ML runs on Apple machines alone")
PROFILES = {".mlpackage": profiles.CoreML()}
IMAGES = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def script(tmp_path_factory, monkeypatch):
    """A format that nobody knew before: one file among the writers."""
    folder = tmp_path_factory.mktemp("writers")
    (folder / "script.py").write_text(FILE)
    monkeypatch.setattr(writers, "__path__", [*writers.__path__, str(folder)])


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.usefixtures("script")
def test_a_new_format_is_one_file(tmp_path):
    module = Classifier()
    fit(module, CompressionReport(tmp_path, formats=[".ts", ".lcz"]))
    assert {"model.ts", "model.lcz"} <= {path.name for path in tmp_path.iterdir()}
    assert json.loads((tmp_path / "report.json").read_text())["deployments"] == []
    assert export(module, tmp_path / "other.ts", IMAGES).exists()
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(tmp_path / "other.ts")(IMAGES), module.eval()(IMAGES))
    with pytest.raises(ValueError, match=r"path with a suffix out of .lcz, .*, .ts, got '.tz'; did you mean '.ts'"):
        export(module, tmp_path / "other.tz", IMAGES)


@dataclass(frozen=True)
class Names(Writer):
    """Writes the names of the state dict."""

    suffix = ".txt"
    needs_example = False

    def write(self, module, example, path):
        path.write_text("\n".join(module.state_dict()))

    def check(self, module, example, path):
        if example is not None or path.read_text().split() != list(module.state_dict()):
            raise ValueError("other names")


class Missing(Names):
    packages = ("no_such_package",)
    extra = "names"


def test_a_writer_can_be_passed(tmp_path):
    export(nn.Linear(2, 2), tmp_path / "m.txt", writer=Names())
    assert (tmp_path / "m.txt").read_text() == "weight\nbias"
    fit(Classifier(), CompressionReport(tmp_path, formats=[Names()]))
    assert "bias" in (tmp_path / "model.txt").read_text()
    with pytest.raises(ImportError, match=r"need no_such_package to write .txt: pip install '.*\[names\]'"):
        export(nn.Linear(2, 2), tmp_path / "m.txt", writer=Missing())


def test_a_writer_of_another_kind_is_refused(tmp_path):
    with pytest.raises(TypeError, match="need writer as an object of a subclass of Writer, got '.lcz'"):
        export(nn.Linear(2, 2), tmp_path / "m.lcz", writer=".lcz")
    with pytest.raises(ValueError, match=r"a path that ends in .pt2 for Program\(compiled=True, .*\), got '.*m.onnx'"):
        export(nn.Linear(2, 2), tmp_path / "m.onnx", torch.ones(1, 2), writer=Program(compiled=True))


def test_the_suffix_finds_the_writer():
    assert find_writers().keys() >= {".lcz", ".onnx", ".pt2"}
    assert find_writer(".lcz") == Archive()


def _content(path):
    return b"".join(
        file.read_bytes() for file in (sorted(path.rglob("*")) if path.is_dir() else [path]) if file.is_file()
    )


@pytest.mark.parametrize("suffix", find_writers())
def test_a_good_file_is_never_lost(suffix, tmp_path, monkeypatch):
    path, writer = tmp_path / f"m{suffix}", find_writer(suffix)
    export(nn.Linear(2, 2), path, torch.ones(1, 2))
    good = _content(path)

    def refuse(self, module, example, path):
        assert path.exists()
        raise ValueError("need a better file")

    monkeypatch.setattr(type(writer), "check", refuse)
    for name in (path.name, f"other{suffix}"):
        with pytest.raises(ValueError, match="need a better file"):
            export(nn.Linear(2, 2), tmp_path / name, torch.ones(1, 2))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert _content(path) == good


@pytest.mark.parametrize("suffix", [suffix for suffix, writer in find_writers().items() if writer.needs_example])
def test_a_quantized_module_is_lowered(suffix, tmp_path):
    module = Classifier()
    fit(module, QATCallback(8, profile=PROFILES.get(suffix, profiles.OnnxRuntime())))
    prepared = find_writer(suffix).prepare(module.eval(), IMAGES)
    assert prepared is not module
    assert any(buffer.dtype == torch.int8 for buffer in prepared.buffers())


@pytest.mark.parametrize(
    ("suffix", "quantized"),
    [(suffix, quantized) for suffix, it in find_writers().items() for quantized in {False, it.needs_example}],
)
def test_a_file_tells_neither_where_it_was_written_nor_from_which_data(suffix, quantized, tmp_path):
    class Own(Classifier):
        def forward(self, x):
            return super().forward(x)  # a line of this file

    module = Own()
    if quantized:
        fit(module, QATCallback(profile=PROFILES.get(suffix, profiles.Mobile())))
    content = _content(export(module, tmp_path / f"m{suffix}", IMAGES))
    for secret in (tmp_path, Path(__file__).parent, Path.home(), Path(torch.__file__).parent, "a line of this file"):
        assert os.fsencode(secret) not in content, secret
    assert all(row.numpy().tobytes() not in content for row in IMAGES.flatten(0, 2))
