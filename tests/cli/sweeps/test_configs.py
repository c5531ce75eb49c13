import pytest
import yaml

from lightning_compress.cli.lightning import CompressionCLI
from lightning_compress.cli.sweeps.configs import SweptConfig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning's use of jsonargparse
CONFIG = """
model: {class_path: examples.digits.DigitsClassifier}
data: {class_path: examples.digits.DigitsData}
trainer:
  callbacks:
    - class_path: PruningCallback
      init_args: {sparsity: 0.9, criterion: taylor}
sweep:
  trainer.callbacks.PruningCallback.sparsity: {low: 0.5, high: 0.98}
"""


@pytest.fixture
def swept(tmp_path):
    def parsed(**ranges):
        (tmp_path / "config.yaml").write_text(CONFIG)
        words = ["--config", f"{tmp_path}/config.yaml"]
        if ranges:
            (tmp_path / "ranges.yaml").write_text(yaml.safe_dump({"sweep": ranges["ranges"]}))
            words += ["--config", f"{tmp_path}/ranges.yaml"]
        return SweptConfig(words, CompressionCLI)

    return parsed


def test_a_config_has_all_arguments_and_its_ranges_apart(swept):
    found = swept()
    assert found.ranges == {"trainer.callbacks.PruningCallback.sparsity": {"low": 0.5, "high": 0.98}}
    (pruning,) = found.config["trainer"]["callbacks"]
    assert pruning["init_args"]["schedule"]["init_args"] == {"begin": 0.15, "until": 0.7}
    assert found.config["model"]["init_args"] == {"lr": 0.002}
    assert "sweep" not in found.config
    found.check()


def test_ranges_may_stand_in_a_file_of_their_own(swept):
    ranges = {
        "model.lr": {"low": 1e-4, "high": 0.1, "log": True},
        "trainer.max_epochs": {"low": 1, "high": 3},
        "trainer.callbacks.PruningCallback.criterion": {"choices": ["taylor", "magnitude"]},
        "trainer.callbacks.PruningCallback.schedule.until": {"low": 0.3, "high": 0.9},
        "trainer.callbacks.PruningCallback.pattern": {"choices": [{"class_path": "NM", "init_args": {"n": 2, "m": 4}}]},
        "data.batch_size": {"choices": [16, 32]},
    }
    found = swept(ranges=ranges)
    assert found.ranges["model.lr"] == ranges["model.lr"]
    found.check()


@pytest.mark.parametrize(
    ("ranges", "said"),
    [
        (
            {"model.rate": {"low": 1, "high": 2}},
            "need 'model.rate' as a key of the config, got 'rate' of model, w",
        ),
        (
            {"trainer.callbacks.PruningCallback.scope": {"choices": ["layer", "all"]}},
            "need values that trainer.callbacks.PruningCallback.scope takes in the section sweep, got 'all': ",
        ),
        (
            {"trainer.default_root_dir": {"choices": ["a", "b"]}},
            "need settings of a run in sweep, got 'trainer.default_root_dir': every trial has a folder of its own$",
        ),
        ({"data.batch_size": {"low": 0.5, "high": 4}}, "need values that data.batch_size takes .*, got 0.5: "),
    ],
    ids=["key", "choice", "folder", "kind"],
)
def test_a_range_of_no_key_or_with_a_wrong_value_is_refused(ranges, said, swept):
    with pytest.raises(ValueError, match=said):
        swept(ranges=ranges).check()


def test_a_wrong_criterion_is_refused(swept):
    with pytest.raises(ValueError, match="need criterion as one of .* got 'tailor'; did you mean 'taylor'"):
        swept(ranges={"trainer.callbacks.PruningCallback.criterion": {"choices": ["tailor"]}}).check()
