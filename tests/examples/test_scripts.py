"""The scripts of the examples run, here on a few images, and print and write their tables."""

import pytest

from examples.deep_compression import run as deep_compression
from examples.transfer import run as transfer
from tests.support.fashion import write_files


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    write_files(tmp_path / "data" / "fashion-mnist")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_deep_compression(folder, monkeypatch, capsys):
    words = ["--epochs=4", "--seeds=1", "--sparsities", "0.5", "0.9"]
    monkeypatch.setattr("sys.argv", ["run", *words])
    deep_compression.main()
    rows = (folder / "runs" / "deep_compression" / "sizes.csv").read_text().splitlines()
    names = [row.split(",")[0].strip('"') for row in rows]
    assert names[:3] == ["setting", "dense", "90.0% zeros"]
    assert len(rows) == 7
    assert (folder / "runs" / "deep_compression" / "sizes.png").stat().st_size > 0
    assert "lenet300 on Fashion-MNIST" in capsys.readouterr().out


def test_transfer(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["run", "--epochs=1", "--images=40", "--steps=2", "--seeds=2"])
    transfer.main()
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("from scratch", "from labels, no teacher", "from the teacher, no labels"))
