"""Reports are found, read and refused."""

import json

import pytest

from lightning_compress import compare
from tests.support.reports import write_report


def test_reports_are_found_in_a_folder_below_it_and_as_files(tmp_path):
    write_report(tmp_path / "a", size=1)
    write_report(tmp_path / "b" / "version_0", size=2)
    write_report(tmp_path / "b" / "version_1", size=3)
    write_report(tmp_path / "b" / ".report.json.x.tmp", size=4)  # the draft of a run that was killed
    found = compare([tmp_path / "a", tmp_path / "b", tmp_path / "b" / "version_1" / "report.json"])
    assert [run.name for run in found.runs] == ["a", "b/version_0", "b/version_1"]


@pytest.mark.parametrize(
    ("folders", "names"),
    [
        (["one/version_0"], ["one"]),
        (["one/version_0", "two/version_0"], ["one", "two"]),
        (["one/version_0", "two/version_1"], ["one/version_0", "two/version_1"]),
        (["one/best", "two/best"], ["one/best", "two/best"]),
    ],
)
def test_a_version_that_tells_no_runs_apart_is_no_part_of_their_names(folders, names, tmp_path):
    for size, folder in enumerate(folders, 1):
        write_report(tmp_path / folder, size=size)
    assert [run.name for run in compare([tmp_path]).runs] == names


def test_the_bytes_are_those_of_the_file(tmp_path):
    write_report(tmp_path / "a", size=100, files={"model.onnx": 7, "model.lcz": 100})
    write_report(tmp_path / "b", size=90, failures={"model.lcz": "no space left", "model.onnx": "no space left"})
    assert [run.bytes for run in compare([tmp_path]).runs] == [100, None]
    assert [(run.name, run.bytes) for run in compare([tmp_path], suffix=".onnx").runs] == [("a", 7), ("b", None)]
    assert "not written" in str(compare([tmp_path]))
    with pytest.raises(ValueError, match=r"need suffix as that of a file that a run has written, got '\.pt2'; there"):
        compare([tmp_path], suffix=".pt2")


def test_latencies_are_those_of_the_file_in_its_runtime(tmp_path):
    write_report(tmp_path / "a", size=1, files={"model.onnx": 7}, latencies=(4e-3, 2e-3), in_onnx_runtime=(3e-3, 1e-3))
    (run,) = compare([tmp_path], suffix=".onnx").runs
    assert (run.measured_in, run.latencies[1].median) == ("model.onnx in ONNX Runtime", 1e-3)
    (run,) = compare([tmp_path]).runs
    assert (run.measured_in, run.latencies[1].median) == ("PyTorch on cpu", 2e-3)
    write_report(tmp_path / "b", size=1, latencies=(4e-3, 2e-3))
    found = compare([tmp_path], suffix=".onnx")
    assert [(run.name, run.measured_in) for run in found.runs] == [("a", "model.onnx in ONNX Runtime"), ("b", "")]
    assert "2 has no latency: its .onnx file was not written." in str(found)


def test_the_metric_is_the_watched_one(tmp_path):
    for name in "ab":
        write_report(tmp_path / name, size=1, metrics={"val_acc": 0.9, "score": 0.5}, modes={"score": "min"})
    found = compare([tmp_path])
    assert (found.metric, found.mode) == ("score", "min")
    assert compare([tmp_path], metric="val_acc").mode == "max"


@pytest.mark.parametrize(
    ("first", "second", "asked", "said"),
    [
        ({"a": 1.0}, {"b": 1.0}, {}, "need runs with a metric in common, got different ones: .*has a; .*has b"),
        ({"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 2.0}, {}, "need metric as one of a, b, got none: .*--metric a$"),
        (
            {"a": 1.0},
            {"b": 1.0},
            {"metric": "a"},
            "need metric as one that every run has, got 'a', which is missing in .*two; there are: a, b",
        ),
        ({"a": 1.0}, {"a": 1.0}, {}, "need mode='min' or mode='max', since nothing says when a is better"),
        ({"a": 1.0}, {"a": 1.0}, {"mode": "least"}, "need mode 'min' or 'max', got mode='least'"),
    ],
    ids=["different", "several", "missing", "direction", "mode"],
)
def test_metrics_that_cannot_be_compared(first, second, asked, said, tmp_path):
    write_report(tmp_path / "one", size=1, metrics=first)
    write_report(tmp_path / "two", size=1, metrics=second)
    with pytest.raises(ValueError, match=said):
        compare([tmp_path], **asked)


def test_paths_without_a_report(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"need a folder with a report\.json in it or below it, got '.*empty'"):
        compare([tmp_path / "empty"])
    with pytest.raises(FileNotFoundError, match="need paths of runs, got '.*none', which does not exist"):
        compare([tmp_path / "none"])
    with pytest.raises(ValueError, match="need at least one run, got none"):
        compare([])
    with pytest.raises(TypeError, match=r"need paths as a list, got 'runs': write \['runs'\]"):
        compare("runs")


def test_a_damaged_report_is_named(tmp_path):
    path = write_report(tmp_path / "a", size=1)
    path.write_text(path.read_text()[:-30])
    with pytest.raises(ValueError, match=r"need a report as JSON, got .*report\.json, which is damaged"):
        compare([tmp_path])


def test_a_report_of_a_later_version_is_named(tmp_path):
    path = write_report(tmp_path / "a", size=1)
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    with pytest.raises(ValueError, match=r"need a report of format 1, got .*report\.json of format 99, which a"):
        compare([tmp_path])


def test_monitors_that_disagree_are_named(tmp_path):
    for name, mode in (("a", "max"), ("b", "min")):
        write_report(tmp_path / name, size=1, metrics={"val_acc": 0.9}, modes={"val_acc": mode})
    for paths in ([tmp_path / "a", tmp_path / "b"], [tmp_path / "b", tmp_path / "a"]):
        with pytest.raises(ValueError, match="since monitors of val_acc disagree, got 'max' in .*a and 'min' in .*b"):
            compare(paths)
    assert compare([tmp_path], mode="max").mode == "max"


def test_links_to_folders_are_followed_and_each_run_counts_once(tmp_path):
    write_report(tmp_path / "elsewhere" / "a", size=1)
    write_report(tmp_path / "runs" / "b", size=2)
    (tmp_path / "runs" / "linked").symlink_to(tmp_path / "elsewhere" / "a")
    (tmp_path / "runs" / "latest").symlink_to(tmp_path / "runs" / "b")
    (tmp_path / "runs" / "b" / "circle").symlink_to(tmp_path / "runs")
    assert [run.bytes for run in compare([tmp_path / "runs"]).runs] == [1, 2]


def test_the_run_without_the_metric_of_the_others_is_named(tmp_path):
    for name in "abcde":
        write_report(tmp_path / name, size=1, metrics={"val_acc": 0.9})
    write_report(tmp_path / "f", size=1, metrics={})
    with pytest.raises(ValueError, match="got different ones: .*a has val_acc; .*f has none"):
        compare([tmp_path])
