"""``export`` writes the files of a trained module, and says which one failed."""

import warnings

import pytest
import torch
from torch import nn

import lightning_compress
from lightning_compress import export, load_archive
from lightning_compress.cli import main
from lightning_compress.cli.files.exports import USES
from lightning_compress.deploy.export import FORMATS


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Linear(4, 2)

    def forward(self, x):
        return self.net(x)


WORDS = ["--model", f"{__name__}.Small", "--example", "1,4"]


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    return export(Small(), tmp_path / "model.lcz")


def test_every_format_has_its_use():
    assert USES.keys() == set(FORMATS)


def test_files_are_written_with_their_sizes_and_uses(model, tmp_path, capsys):
    out = tmp_path / "ship"
    main(["export", str(model), *WORDS, "--format", "pt2,lcz", "--output", str(out)])
    said = capsys.readouterr().out
    assert f"{out}/model.lcz  {(out / 'model.lcz').stat().st_size:,} bytes, checked" in said
    assert USES[".pt2"] in said
    assert torch.equal(load_archive(out / "model.lcz")["net.weight"], load_archive(model)["net.weight"])


@pytest.mark.parametrize(
    ("sizes", "error"),
    [
        ("1,3,8", r"need an example input that Small.forward takes, got (1, 3, 8), which raises "),
        ("4", r"need --example with the batch as first dimension of every tensor"),
    ],
)
def test_an_example_of_another_shape_is_refused_by_the_name_of_the_option(sizes, error, model, tmp_path, capsys):
    words = ["--model", WORDS[1], "--example", sizes, "--format", "pt2", "--output", str(tmp_path / "ship")]
    with pytest.raises(SystemExit):
        main(["export", str(model), *words])
    said = capsys.readouterr().err
    assert f"model.pt2 is not written: {error}" in said
    assert "example_input" not in said
    assert "--example" in said


def test_a_format_that_fails_leaves_the_others(model, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise ValueError("no such operator\nand more")

    monkeypatch.setattr("lightning_compress.deploy.writers.programs.Program.write", fail)
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(model), *WORDS, "--format", "lcz,pt2", "--output", str(tmp_path / "ship")])
    assert stopped.value.code == 1
    said = capsys.readouterr()
    assert "model.lcz  " in said.out
    assert said.err == "lightning-compress: error: model.pt2 is not written: ValueError: no such operator\n"
    assert [path.name for path in (tmp_path / "ship").iterdir()] == ["model.lcz"]


def test_warnings_of_this_package_stand_below_their_file(model, tmp_path, capsys, monkeypatch):
    def check(*_):
        ours = "LiteRT computes layers of a model in float, though activations are quantized: " + "net.layer, " * 8
        warnings.warn_explicit(ours, UserWarning, lightning_compress.deploy.__file__, 1)
        warnings.warn_explicit("of another package", FutureWarning, "other.py", 1)

    monkeypatch.setattr("lightning_compress.deploy.writers.programs.Program.check", check)
    with pytest.warns(FutureWarning, match="of another package"):
        main(["export", str(model), *WORDS, "--format", "pt2,lcz", "--output", str(tmp_path / "ship")])
    lines = capsys.readouterr().out.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("  LiteRT computes layers"))
    assert lines[first - 1] == f"  for {USES['.pt2']}"
    assert lines[first + 1].startswith("    net.layer, ")
    assert max(map(len, lines[first : first + 3])) <= 80


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--format", "onx", *WORDS],
            "need --format out of .lcz, .mlpackage, .onnx, .pt2, .pte, .safetensors, .tflite, got '.onx'; "
            "did you mean '.onnx'?",
        ),
        (
            ["--format", "", *WORDS],
            "need --format out of .lcz, .mlpackage, .onnx, .pt2, .pte, .safetensors, .tflite, got an empty",
        ),
        (["--format", "lcz", "--output", __file__, *WORDS], "need a folder as --output, got "),
        (["--format", "lcz", *WORDS], "need --output as another folder, got "),
        (
            ["--format", "pt2", *WORDS[:2]],
            "need an example input to write .pt2, got none (there is no config that names data)",
        ),
        (["--format", "pt2"], "need the class of the module of "),
    ],
)
def test_wrong_words_are_named(words, said, model):
    with pytest.raises(SystemExit) as stopped:
        main(["export", str(model), *words])
    assert str(stopped.value.code).startswith(f"lightning-compress: error: {said}")
