"""The report in a terminal of 80 columns: numbers stay whole, and nothing is wider than the terminal."""

import pytest

from lightning_compress.report.views.outputs import show
from tests.support.reports import comparison_of


@pytest.mark.parametrize("columns", [80, 120])
def test_no_row_is_wider_than_the_terminal(columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    found = comparison_of(5, {"val_acc": 0.9}, latencies=(0.2, 0.1), in_onnx_runtime=(0.2, 0.1))
    show(found)
    lines = capsys.readouterr().out.splitlines()
    plain = [line.replace("\x1b[1m", "").replace("\x1b[3m", "").replace("\x1b[0m", "") for line in lines]
    assert "\x1b" not in "".join(plain)  # NO_COLOR leaves bold and italic alone
    assert max(map(len, plain)) <= columns
    assert any("0.1% → 75.0%" in line or "archive" in line for line in plain)
