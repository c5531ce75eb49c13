"""Every goal's config is one that the command takes, and builds the callbacks of the goal."""

import lightning as L
import pytest

from examples.digits import DigitsClassifier
from lightning_compress.cli.goals.configs import GOALS, config_of
from lightning_compress.cli.lightning import CompressionCLI

MINE = {
    "path": "config.yaml",
    "model": "examples.digits.DigitsClassifier",
    "data": "examples.digits.DigitsData",
    "metric": "val_acc",
    "mode": "max",
}
WANTED = {
    "smaller-file": ["PruningCallback", "WeightSharingCallback"],
    "file-size": ["CompressionBudget"],
    "small-loss": ["CompressionBudget"],
    "faster-cpu": ["QATCallback"],
    "phone": ["QATCallback"],
    "half-macs": ["ChannelPruningCallback"],
    "distil": ["DistillationCallback", "PruningCallback"],
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("goal", GOALS)
def test_a_config_builds_the_callbacks_of_its_goal(goal, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["lightning-compress"])
    trainer = L.Trainer(accelerator="cpu", logger=False)
    trainer.strategy.connect(DigitsClassifier())
    trainer.save_checkpoint("teacher.ckpt")
    (tmp_path / "config.yaml").write_text(config_of(goal, **MINE))
    cli = CompressionCLI(args=["--config", "config.yaml"], run=False)
    built = [type(callback).__name__ for callback in cli.trainer.callbacks]
    assert built[: len(WANTED[goal])] == WANTED[goal]
    assert "CompressionReport" in built
    assert cli.trainer.checkpoint_callback.monitor == "val_acc"


@pytest.mark.parametrize("goal", GOALS)
def test_a_config_has_comments_and_no_gaps(goal):
    text = config_of(goal, **MINE)
    assert "@" not in text
    assert max(map(len, text.splitlines())) <= 120
    assert text.startswith(f"# {GOALS[goal].line}\n")
