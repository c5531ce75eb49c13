from pathlib import Path

import pytest

from lightning_compress.search.sweeps.trials import is_hopeless, trial_config

FOLDER = Path("sweeps/a/trial_0003")


def test_everything_that_a_trial_writes_is_in_its_folder():
    config = {
        "seed_everything": True,
        "trainer": {
            "logger": {"class_path": "CSVLogger", "init_args": {"save_dir": "runs", "name": "x"}},
            "callbacks": [
                {"class_path": "ModelCheckpoint", "init_args": {"dirpath": "/data/best", "monitor": "a"}},
                {"class_path": "ModelCheckpoint", "init_args": {"dirpath": None}},
                {"class_path": "lightning_compress.CompressionReport", "init_args": {"dirpath": "report"}},
            ],
        },
        "model": {"init_args": {"lr": 0.1}},
    }
    found = trial_config(config, {("model", "init_args", "lr"): 0.2}, FOLDER)
    checkpoint, other, report = (entry["init_args"] for entry in found["trainer"]["callbacks"])
    assert (found["seed_everything"], found["model"]["init_args"]["lr"]) == (0, 0.2)
    assert found["trainer"]["default_root_dir"] == str(FOLDER)
    assert found["trainer"]["logger"]["init_args"]["save_dir"] == str(FOLDER)
    assert (checkpoint["dirpath"], other["dirpath"], report["dirpath"]) == (str(FOLDER / "best"), None, str(FOLDER))
    assert config["trainer"]["callbacks"][0]["init_args"]["dirpath"] == "/data/best"


def test_folders_of_one_last_name_are_kept_apart():
    given = ["runs/a/best", "runs/b/best", "best/../other", ".", "..", "runs/a/best"]
    callbacks = [{"class_path": "ModelCheckpoint", "init_args": {"dirpath": path}} for path in given]
    *found, _ = trial_config({"trainer": {"callbacks": callbacks}}, {}, FOLDER)["trainer"]["callbacks"]
    places = [Path(entry["init_args"]["dirpath"]) for entry in found]
    assert places[:3] == [FOLDER / "best", FOLDER / "best_2", FOLDER / "other"]
    assert places[0] == places[5]
    assert len(set(places)) == 5
    assert {place.parent for place in places} == {FOLDER}


@pytest.mark.parametrize("callbacks", [None, [], {"class_path": "Timer"}], ids=["none", "empty", "single"])
def test_a_report_is_added(callbacks):
    found = trial_config({"seed_everything": 7, "trainer": {"callbacks": callbacks, "logger": False}}, {}, FOLDER)
    *others, report = found["trainer"]["callbacks"]
    assert report == {"class_path": "lightning_compress.CompressionReport", "init_args": {"dirpath": str(FOLDER)}}
    assert others == ([callbacks] if isinstance(callbacks, dict) else [])
    assert found["seed_everything"] == 7


def test_a_callback_may_be_the_name_of_its_class():
    config = {"trainer": {"callbacks": [{"class_path": "QATCallback"}], "logger": False}}
    found = trial_config(config, {("trainer", "callbacks", 0): "BinarizationCallback"}, FOLDER)
    assert found["trainer"]["callbacks"][0] == {"class_path": "BinarizationCallback"}


FIVE = [[0.1 * run] * 8 for run in range(1, 6)]  # a quarter of them is worse than 0.2


@pytest.mark.parametrize(
    ("values", "others", "mode", "hopeless"),
    [
        ([0.15, 0.15], FIVE, "max", True),
        ([0.15, 0.15], FIVE[:4], "max", False),  # too few to know
        ([0.15], FIVE, "max", False),  # too early
        ([0.25, 0.25], FIVE, "max", False),
        ([0.45, 0.45], FIVE, "min", True),
        ([0.35, 0.35], FIVE, "min", False),
        ([0.25, 0.15, 0.15], FIVE, "max", False),  # one bad validation is no proof
        ([0.9, 0.15, 0.15, 0.15], FIVE, "max", True),  # a good one before the model was compressed is none, either
        ([0.15] * 9, FIVE, "max", False),  # no other run has so many validations
    ],
)
def test_a_hopeless_run_is_worse_than_three_quarters_of_the_others(values, others, mode, hopeless):
    assert is_hopeless(values, others, mode) == hopeless
