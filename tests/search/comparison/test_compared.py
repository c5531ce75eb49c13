"""The tables, pictures and numbers of compared runs, from reports that are written by hand."""

import json

import pytest

from lightning_compress import compare
from tests.support.reports import write_report


@pytest.fixture
def runs(tmp_path):
    """Four runs: two on the front, one that is beaten in both numbers, one that diverged."""
    write_report(tmp_path / "half", size=200, metrics={"val_acc": 0.95})
    write_report(tmp_path / "worse", size=210, metrics={"val_acc": 0.90})
    write_report(tmp_path / "tiny", size=50, metrics={"val_acc": 0.91}, latencies=(2e-3, 1e-3))
    write_report(tmp_path / "nan", size=20, metrics={"val_acc": None})
    return tmp_path


def test_the_front_is_marked_and_the_smallest_file_stands_first(runs):
    found = compare([runs])
    assert [(run.name, run.bytes, run.front) for run in found.runs] == [
        ("nan", 20, False),
        ("tiny", 50, True),
        ("half", 200, True),
        ("worse", 210, False),
    ]
    assert [run.name for run in found.front] == ["tiny", "half"]


def test_a_loss_is_better_when_it_is_smaller(tmp_path):
    write_report(tmp_path / "a", size=100, metrics={"val_loss": 0.3})
    write_report(tmp_path / "b", size=200, metrics={"val_loss": 0.4})
    assert [run.name for run in compare([tmp_path]).front] == ["a"]
    assert [run.name for run in compare([tmp_path], mode="max").front] == ["a", "b"]


def test_the_table_fits_a_terminal(runs):
    text = str(compare([runs]))
    assert max(map(len, text.splitlines())) <= 80
    assert text.startswith("4 runs, .lcz files; * no other run has a larger val_acc in as few bytes\n\n")
    rows = [line.split() for line in text.splitlines()]
    assert ["2", "tiny", "*", "50", "20.00x", "75.0%", "0.9100", "1.000", "2.00x"] in rows
    assert ["1", "nan", "20", "50.00x", "75.0%", "not", "finite"] in rows
    assert "4 worse: PruningCallback: 0.75 sparse" in text
    assert "Latency in PyTorch on cpu; each dense model was timed in turns with its own run." in text


def test_a_latency_is_the_same_where_the_quartiles_overlap(tmp_path):
    write_report(tmp_path / "a", size=100, latencies=(1e-3, 1.01e-3))
    assert str(compare([tmp_path])).splitlines()[3].endswith("same")


def test_names_are_escaped_in_a_notebook(tmp_path):
    write_report(tmp_path / "<b>", size=100)
    write_report(tmp_path / "c", size=100)
    html = compare([tmp_path])._repr_html_()
    assert "&lt;b&gt;" in html
    assert "<b>1" not in html
    assert html.count("<tr>") == 3


def test_everything_is_in_the_json(runs):
    found = json.loads(compare([runs]).to_json())
    assert (found["metric"], found["mode"], found["suffix"]) == ("val_acc", "max", ".lcz")
    assert found["runs"][1]["methods"] == ["PruningCallback: 0.75 sparse"]
    assert found["runs"][1]["latencies"][1]["median"] == 1e-3
    assert found["runs"][0]["metric"] is None


def test_the_picture_shows_every_run_that_has_both_numbers(runs):
    (axes,) = compare([runs]).draw().axes
    assert {text.get_text() for text in axes.texts} == {"2", "3", "4"}
    assert axes.get_ylabel() == "val_acc"
    line = axes.lines[0]
    assert list(line.get_xdata()) == [50, 200]
    assert list(line.get_ydata()) == [0.91, 0.95]


def test_runs_without_a_metric_have_no_picture(tmp_path):
    write_report(tmp_path / "a", size=100, metrics={})
    found = compare([tmp_path])
    assert str(found).startswith("1 run, .lcz files, no metric\n")
    assert not found.front
    with pytest.raises(ValueError, match=r"need runs with a metric and a \.lcz file to draw, got none"):
        found.draw()


def test_metrics_of_an_earlier_model_are_told(tmp_path):
    write_report(tmp_path / "a", size=1, unvalidated=1200)
    write_report(tmp_path / "b", size=2)
    found = compare([tmp_path])
    assert [run.unvalidated for run in found.runs] == [1200, 0]
    told = " ".join(str(found).split())
    assert "LOSS: the last validation of 1 was 1,200 steps before the end of the run, so val_acc is that of an" in told
    assert "validation of 2" not in told


def test_metrics_of_another_model_are_told(tmp_path):
    write_report(tmp_path / "a", size=1)
    write_report(tmp_path / "b", size=2, changed=True)
    told = " ".join(str(compare([tmp_path])).split())
    assert "LOSS: the last validation of 2 saw other weights than those in the file, so val_acc is that of" in told
    assert "validation of 1" not in told
