"""What ``compare`` takes in a shell, and files that are refused before anything is measured or trained."""

import pytest

from lightning_compress.cli import main
from tests.support.reports import write_report


def test_a_suffix_without_a_dot(tmp_path, capsys):
    write_report(tmp_path / "a", size=1, files={"model.onnx": 7})
    main(["compare", str(tmp_path), "--suffix", "onnx"])
    assert "1 run, .onnx files" in capsys.readouterr().out


FILES = {
    "compare there.yaml --plot x.foo": "need --plot as a file with one of the suffixes .*, got 'x.foo'$",
    "compare there.yaml --plot gone/x.png": "need --plot in a folder that exists, got 'gone/x.png': make 'gone'$",
    "sensitivity --config there.yaml --plot x.foo": "need --plot as a file with one of the suffixes .*, got 'x.foo'$",
    "sensitivity --config there.yaml --csv gone/rows.csv": "need --csv in a folder that exists, got 'gone/rows.csv': ",
    "sweep --config there.yaml --plot x.foo": "need --plot as a file with one of the suffixes .*, got 'x.foo'$",
    "sweep --config there.yaml --best best.yaml": "need --bytes to write --best, got none: the trials of a front have",
}


@pytest.mark.parametrize("words", FILES)
def test_a_file_that_cannot_be_written_is_named_before_all_else(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.yaml").touch()
    with pytest.raises(SystemExit, match=FILES[words]):
        main(words.split())
    assert [path.name for path in tmp_path.iterdir()] == ["there.yaml"]
