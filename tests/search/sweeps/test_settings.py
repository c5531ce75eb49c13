from dataclasses import asdict

import pytest

from lightning_compress.search.sweeps.settings import settings_of

RANGES = {"model.lr": {"low": 0.1, "high": 0.2}}


def config(*monitors, formats=(".lcz",)):
    callbacks = [{"class_path": "ModelCheckpoint", "init_args": {"monitor": n, "mode": m}} for n, m in monitors]
    report = {"class_path": "lightning_compress.CompressionReport", "init_args": {"formats": list(formats)}}
    return {"trainer": {"callbacks": [*callbacks, report, {"class_path": "Timer"}]}}


def settings(given, **asked):
    return settings_of(given, RANGES, **{"metric": None, "mode": None, "suffix": ".lcz", "limit": None, **asked})


def test_the_monitor_says_the_metric_and_the_directions():
    assert settings(config(("score", "max"))).directions == ["maximize", "minimize"]
    assert settings(config(("score", "min"), ("score", "min"))).directions == ["minimize", "minimize"]
    assert settings(config(("score", "max")), limit=100).directions == ["maximize"]
    assert settings(config(), metric="val_loss").mode == "min"
    assert settings(config(), metric="score", mode="max").mode == "max"


@pytest.mark.parametrize(
    ("given", "asked", "said"),
    [
        (config(), {}, "need --metric, the name of a metric that validation logs; the config has no monitor"),
        (config(("a", "min"), ("b", "max")), {}, "need --metric, .* the config has monitors of a, b"),
        (config(), {"metric": "score"}, "need --mode min or --mode max, since nothing says when score is better"),
        (config(("a", "min")), {"suffix": ".onnx"}, r"need --suffix as one of the formats .*, got '\.onnx'; .*: \.lcz"),
        (config(("a", "min")), {"limit": 0}, "need bytes >= 1, got bytes=0"),
    ],
    ids=["none", "several", "direction", "suffix", "bytes"],
)
def test_settings_that_cannot_be_known(given, asked, said):
    with pytest.raises(ValueError, match=said):
        settings(given, **asked)


def test_the_file_may_be_another_one():
    assert settings(config(("a", "min"), formats=(".onnx",)), suffix=".onnx").suffix == ".onnx"


def test_the_difference_names_the_first_setting():
    mine = settings(config(("a", "min")))
    other = asdict(settings(config(("a", "min"))))
    assert mine.difference(other) == ""
    assert mine.difference({**other, "bytes": 5}) == "bytes is 5 there and None here"
    changed = {**other, "ranges": {"model.lr": {"low": 0.1, "high": 0.9}}}
    assert mine.difference(changed) == "ranges.model.lr.high is 0.9 there and 0.2 here"
