"""report.json, written and read back."""

import json
from dataclasses import replace

import pytest

from lightning_compress.report import Moment, read_report
from tests.support.reports import comparison_of, write_report


def test_a_report_is_read_as_it_was_written(tmp_path):
    path = write_report(
        tmp_path / "a",
        size=300,
        metrics={"val_acc": 0.9, "val_loss": None},
        modes={"val_acc": "max"},
        files={"model.lcz": 301, "model.onnx": 400},
        latencies=(2e-3, 1e-3),
    )
    found = read_report(path)
    assert (found.before.archive_bytes, found.after.archive_bytes, found.after.sparsity) == (1000, 300, 0.75)
    assert (found.bytes(".lcz"), found.bytes(".onnx"), found.bytes(".pt2")) == (301, 400, None)
    assert (found.metric("val_acc"), found.metric("val_loss"), found.modes) == (0.9, None, {"val_acc": "max"})
    assert list(found.metrics_after) == ["val_acc", "val_loss"]
    assert found.methods == {"PruningCallback": {"method": "0.75 sparse", "strength": 1.0}}
    assert found.places["PyTorch on cpu"][0].median == 2e-3
    assert found.path == path


def test_the_object_is_the_one_that_was_written(tmp_path):
    comparison = comparison_of(
        300, {"val_acc": 0.9}, files={"model.lcz": 301}, latencies=(2e-3, 1e-3), in_onnx_runtime=(2e-3, 1e-3)
    )
    moment = Moment(7, {"val_acc": 0.5}, {"PruningCallback": {"strength": 0.5, "sparsity": 0.4}}, 20)
    comparison = replace(comparison, history=(moment,), configuration={"A": "A()"}, versions={"torch": "2"})
    (tmp_path / "report.json").write_text(json.dumps(comparison.to_dict()))
    assert read_report(tmp_path / "report.json") == comparison


def test_a_row_that_is_not_a_number_is_the_same_when_it_is_read(tmp_path):
    comparison = replace(comparison_of(300, {"val_acc": None}), methods={"Rows": {"error": float("nan")}})
    (tmp_path / "report.json").write_text(json.dumps(comparison.to_dict()))
    assert read_report(tmp_path / "report.json") == comparison
    assert read_report(tmp_path / "report.json") != replace(comparison, steps=1)


def test_the_archive_is_known_though_it_was_not_asked_for(tmp_path):
    assert read_report(write_report(tmp_path / "a", size=300, files={"model.onnx": 400})).bytes(".lcz") == 300
    failed = write_report(tmp_path / "b", size=300, failures={"model.lcz": "no space"})
    assert read_report(failed).bytes(".lcz") is None


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("format", None, "which has no number as its format"),
        ("format", "1", "which has no number as its format"),
        ("after", {"layers": [], "macs": None}, "which is damaged: KeyError: 'state_bytes'"),
        ("after", 3, "which is damaged: TypeError"),
        ("metrics_after", {"val_acc": "high"}, "damaged: TypeError: need val_acc as a number, got 'high'"),
        ("files", {"model.lcz": "many"}, "damaged: TypeError: need bytes of model.lcz as an integer, got 'many'"),
        ("latencies", [{"median": 1.0}], "which is damaged"),
    ],
    ids=["no_format", "text", "keys", "number", "metric", "bytes", "latency"],
)
def test_a_damaged_report_says_where(key, value, said, tmp_path):
    path = write_report(tmp_path / "a", size=300, latencies=(2e-3, 1e-3))
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    with pytest.raises(ValueError, match=said) as error:
        read_report(path)
    assert str(path) in str(error.value)


def test_a_report_without_a_part_is_damaged(tmp_path):
    path = write_report(tmp_path / "a", size=300)
    values = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in values.items() if name != "files"}))
    with pytest.raises(ValueError, match="damaged: KeyError: 'files'"):
        read_report(path)
    path.write_text("[1, 2]")
    with pytest.raises(ValueError, match="no number as its format"):
        read_report(path)


def test_a_report_of_an_earlier_version_is_read(tmp_path):
    path = write_report(tmp_path / "a", size=1)
    values = json.loads(path.read_text())
    for name in ("unvalidated", "history", "configuration", "versions", "compared_with"):
        del values[name]
    path.write_text(json.dumps(values))
    found = read_report(path)
    assert (found.unvalidated, found.history, found.versions) == (0, (), {})
