"""What ``compare`` takes in a shell: suffixes without a dot, and pictures of the kinds that matplotlib writes."""

import pytest

from lightning_compress.cli import main
from tests.support.reports import write_report


def test_a_suffix_without_a_dot_and_a_picture_of_an_unknown_kind(tmp_path, capsys):
    write_report(tmp_path / "a", size=1, files={"model.onnx": 7})
    main(["compare", str(tmp_path), "--suffix", "onnx"])
    assert "1 run, .onnx files" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main(["compare", str(tmp_path), "--plot", str(tmp_path / "x.foo")])
    assert "need --plot as a file with one of the suffixes " in str(stopped.value.code)
    assert not (tmp_path / "x.foo").exists()
