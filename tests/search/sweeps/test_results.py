"""The tables, pictures and numbers of a sweep, from a study that is written by hand."""

import json

import optuna
import pytest

from lightning_compress.search.sweeps.results import SweepResult, settings_text
from lightning_compress.search.sweeps.settings import Settings
from lightning_compress.search.sweeps.studies import open_study

RANGES = {
    "model.lr": {"low": 0.0, "high": 1.0},
    "trainer.callbacks.0.bits": {"choices": [4, None, {"class_path": "a.NM"}]},
}
ROWS = [(0.90, 300, 4), (0.95, 500, None), (0.80, 400, {"class_path": "a.NM"}), (0.85, 100, 4)]


@pytest.fixture
def study(tmp_path):
    """Four trials that ended, of which one is beaten, one that was stopped and one that failed."""

    def made(limit=None, ranges=RANGES):
        settings = Settings("val_acc", "max", ".lcz", limit, ranges, {})
        study = open_study(f"sqlite:///{tmp_path}/{limit}.db", "digits", settings)
        names = list(ranges)
        distributions = {names[0]: optuna.distributions.FloatDistribution(0.0, 1.0)}
        for name in names[1:]:
            labels = [json.dumps(value) for value in ranges[name]["choices"]]
            distributions[name] = optuna.distributions.CategoricalDistribution(labels)
        for metric, size, bits in ROWS:
            study.add_trial(
                optuna.create_trial(
                    params={names[0]: metric, **{name: json.dumps(bits) for name in names[1:]}},
                    distributions=distributions,
                    values=[metric, size] if limit is None else [metric],
                    user_attrs={"metric": metric, "bytes": size, "dense_bytes": 1000, "seconds": 3.0, "folder": "f"},
                )
            )
        states = optuna.trial.TrialState
        study.add_trial(optuna.create_trial(state=states.PRUNED))
        study.add_trial(optuna.create_trial(state=states.FAIL, user_attrs={"reason": "need 0 < sparsity < 1"}))
        return study

    return made


def test_the_front_is_a_table(study):
    found = SweepResult.of(study())
    assert [trial.number for trial in found.front] == [3, 0, 1]
    rows = [line.split() for line in str(found).splitlines()]
    assert rows[0] == ["Study", "digits:", "6", "trials,", "4", "ended,", "1", "stopped,", "1", "failed"]
    assert ["trial", "bytes", "smaller", "val_acc", "lr", "bits"] in rows
    assert ["3", "100", "10.00x", "0.8500", "0.85", "4"] in rows
    assert ["1", "500", "2.00x", "0.9500", "0.95", "null"] in rows
    assert "1 failed; trial 5: need 0 < sparsity < 1" in str(found)
    assert str(found).endswith("Trial 1 again:\n  lightning-compress fit --config f/config.yaml")


def test_many_settings_stand_below_the_table(study):
    ranges = {
        **RANGES,
        **{f"trainer.callbacks.0.a_long_name_{n}": RANGES["trainer.callbacks.0.bits"] for n in range(5)},
    }
    text = str(SweepResult.of(study(ranges=ranges)))
    assert max(map(len, text.splitlines())) <= 80
    assert "\n3 lr=0.85 bits=4 a_long_name_0=4 " in text


def test_the_best_is_the_best_that_fits(study):
    found = SweepResult.of(study(400))
    assert found.best.number == 0
    assert "Best of at most 400 bytes: trial 0\n" in str(found)
    assert SweepResult.of(study(50)).best is None
    assert "No trial has a file of at most 50 bytes" in str(SweepResult.of(study(50)))
    assert SweepResult.of(study()).best is None


def test_everything_is_in_the_json(study):
    found = json.loads(SweepResult.of(study(400)).to_json())
    assert (found["metric"], found["mode"], found["bytes"], found["best"]) == ("val_acc", "max", 400, 0)
    assert [trial["settings"].get("trainer.callbacks.0.bits") for trial in found["trials"][:3]] == [
        row[2] for row in ROWS[:3]
    ]
    assert [trial["state"] for trial in found["trials"]] == ["ended"] * 4 + ["stopped", "failed"]


def test_the_picture_shows_the_trials_that_ended(study):
    (axes,) = SweepResult.of(study()).draw().axes
    assert {text.get_text() for text in axes.texts} == {"0", "1", "2", "3"}
    assert list(axes.lines[0].get_xdata()) == [100, 300, 500]


def test_a_notebook_shows_the_front(study):
    assert SweepResult.of(study())._repr_html_().count("<tr>") == 4


def test_a_study_without_trials(tmp_path):
    empty = open_study(f"sqlite:///{tmp_path}/s.db", "digits", Settings("a", "min", ".lcz", None, RANGES, {}))
    found = SweepResult.of(empty)
    assert str(found).startswith("Study digits: 0 trials, none yet\n")
    with pytest.raises(ValueError, match="need trials that came to their end to draw, got none"):
        found.draw()
    theirs = optuna.create_study(study_name="theirs")
    with pytest.raises(ValueError, match="need a study that a sweep has made, got 'theirs'"):
        SweepResult.of(theirs)


def test_settings_of_equal_names_show_their_owner():
    assert settings_text({"a.PruningCallback.begin": 0.1, "b.QATCallback.begin": 3}) == (
        "PruningCallback.begin=0.1 QATCallback.begin=3"
    )
