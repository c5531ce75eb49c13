import optuna
import pytest

from lightning_compress.search.sweeps.ranges import Choices, Interval, ranges_of


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"low": 2, "high": 8}, int),
        ({"low": 2, "high": 64, "log": True}, int),
        ({"low": 2.0, "high": 8}, float),
        ({"low": 0.5, "high": 0.9}, float),
        ({"low": 1e-4, "high": 1e-1, "log": True}, float),
        ({"low": 2, "high": 8, "step": 2}, int),
    ],
    ids=["integers", "log_integers", "mixed", "floats", "log", "step"],
)
def test_numbers_lie_in_the_interval_and_have_its_kind(given, kind):
    (chosen,) = ranges_of({"x": given}).values()
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [chosen.suggest(study.ask(), "x") for _ in range(50)]
    assert all(type(number) is kind and given["low"] <= number <= given["high"] for number in drawn)
    assert len(set(drawn)) > 3
    if "step" in given:
        assert set(drawn) == {2, 4, 6, 8}


def test_choices_may_be_parts_of_a_config():
    values = [4, "taylor", None, True, {"class_path": "NM", "init_args": {"n": 2}}, [1, 2]]
    chosen = Choices(values)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [chosen.suggest(study.ask(), "x") for _ in range(60)]
    assert all(value in drawn for value in values)
    assert all(value in values for value in drawn)


def test_ranges_of_a_section():
    section = {"model.lr": {"low": 1e-4, "high": 0.1, "log": True}, "data.batch_size": {"choices": [32, 64]}}
    assert ranges_of(section) == {
        "model.lr": Interval(1e-4, 0.1, log=True),
        "data.batch_size": Choices([32, 64]),
    }


@pytest.mark.parametrize(
    ("given", "kind", "said"),
    [
        (
            {"low": 1, "hgh": 2},
            ValueError,
            r"need keys among low, high, .* in sweep\['x'\], got 'hgh'; did you mean 'high'",
        ),
        ({"low": 1}, ValueError, r"need either low and high or choices in sweep\['x'\], got low"),
        ({"low": 1, "high": 2, "choices": [1]}, ValueError, "need either low and high or choices"),
        ({"choices": [1], "log": True}, ValueError, "need either low and high or choices"),
        ({"low": 2, "high": 1}, ValueError, r"need low < high, got low=2 and high=1 in sweep\['x'\]"),
        ({"low": 0, "high": 1, "log": True}, ValueError, "need low > 0 with log, got low=0"),
        ({"low": 1, "high": 4, "log": True, "step": 1}, ValueError, "need either log or step"),
        ({"low": 1, "high": 4, "step": 0}, ValueError, "need step > 0, got step=0"),
        ({"low": "a", "high": 4}, TypeError, "need low as a number, got 'a'"),
        ({"low": 1, "high": 4, "log": "yes"}, TypeError, "need log as true or false, got 'yes'"),
        ({"choices": []}, ValueError, "need at least one of choices, got none"),
        ({"choices": [4, 4]}, ValueError, r"need choices that differ, got \[4, 4\]"),
        ({"choices": 4}, TypeError, "need choices as a list, got 4"),
        (0.5, TypeError, r"need sweep\['x'\] as \{low: \.\.\., high: \.\.\.\} or \{choices: \[\.\.\.\]\}, got 0\.5"),
    ],
    ids=range(14),
)
def test_a_wrong_range_is_named(given, kind, said):
    with pytest.raises(kind, match=said):
        ranges_of({"x": given})


def test_a_section_is_needed():
    for section in (None, {}):
        with pytest.raises(ValueError, match="need ranges in the section sweep of the config, got none"):
            ranges_of(section)
    with pytest.raises(TypeError, match="need the section sweep as a mapping"):
        ranges_of([1])
