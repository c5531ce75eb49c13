"""The report in a terminal of 80 columns: numbers stay whole, and nothing is wider than the terminal."""

from dataclasses import replace

import pytest

from lightning_compress.report.views.outputs import show
from lightning_compress.report.views.tables import markdown
from tests.support.reports import comparison_of

LAYER = "backbone.encoder_layers_0.self_attention.query_projection.weight"
METRIC = "validation/multiclass_accuracy_top1"


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


def large(name):
    """A comparison of one layer with many parameters, and of a metric with a long name."""
    found = comparison_of(6_538, {METRIC: 0.9})
    before, after = (
        replace(model, layers=(replace(model.layers[0], name=name, shape=(110, 123), archive_bytes=size),))
        for model, size in ((found.before, 13_543), (found.after, 6_538))
    )
    return replace(found, before=replace(before, archive_bytes=13_543), after=after, metrics_before={METRIC: 0.95})


def test_long_names_are_shortened_before_numbers_are(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    show(large(LAYER))
    shown = capsys.readouterr().out
    assert max(len(line) for line in shown.splitlines() if "…" in line) <= 80
    assert "13,543 → 6,538" in shown
    assert "2.07x" in shown
    assert METRIC in shown
    assert "query_projection.weight" in shown
    assert LAYER not in shown
    assert "no room for the columns shape" in " ".join(shown.split())


def test_control_characters_of_names_reach_nobody(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    hostile = "a|b\x1b]0;title\x07\n\u202ec"
    found = replace(
        large(hostile), metrics_before={hostile + "acc": 0.9}, metrics_after={hostile + "acc": 0.1},
        methods={hostile: {hostile: hostile}}, failures={hostile: hostile}, compared_with=hostile,
    )  # fmt: skip
    show(found)
    shown = capsys.readouterr().out
    page = markdown(found)
    for text in (shown, page, repr(found)):
        assert not {"\x1b]", "\x07", "\u202e"} & {text[i : i + n] for i in range(len(text)) for n in (1, 2)}
    escaped = r"a\|b\x1b]0;title\x07\n\u202ec"
    assert f"| {escaped} | {escaped} | {escaped} |" in page
