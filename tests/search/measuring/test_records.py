"""A record of trials survives a kill in the middle of a line, and belongs to one run."""

import json

import pytest

from lightning_compress.search.measuring.records import TrialRecord


def test_a_record_goes_on_after_a_line_that_was_cut(tmp_path):
    path = tmp_path / "trials.jsonl"
    first = TrialRecord(path, "run")
    first.add({"layer": "a", "metric": 0.5})
    first.add({"layer": "b", "metric": float("inf")})
    path.write_text(path.read_text()[:-9])
    second = TrialRecord(path, "run")
    assert second.trials == [{"layer": "a", "metric": 0.5}]
    second.add({"layer": "c", "metric": 1.0})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"run": "run"}, {"layer": "a", "metric": 0.5}, {"layer": "c", "metric": 1.0}]


@pytest.mark.parametrize("content", [b"", b'{"run": "ru'], ids=["empty", "cut head"])
def test_a_file_without_a_whole_line_begins_anew(tmp_path, content):
    path = tmp_path / "trials.jsonl"
    path.write_bytes(content)
    assert TrialRecord(path, "run").trials == []
    assert path.read_text() == '{"run": "run"}\n'


def test_a_record_of_another_run_is_refused_and_kept(tmp_path):
    path = tmp_path / "trials.jsonl"
    TrialRecord(path, "run").add({"layer": "a"})
    before = path.read_text()
    with pytest.raises(ValueError, match=r"need a file of the same run to go on, got trials.jsonl of another"):
        TrialRecord(path, "other")
    assert path.read_text() == before
    path.write_text("not json\n")
    with pytest.raises(ValueError, match="need a file of JSON lines to go on, got trials.jsonl"):
        TrialRecord(path, "run")
    assert path.read_text() == "not json\n"
