"""The command ``sweep``, typed as a user would; one real run in a process of its own."""

import json
import sys

import pytest
import yaml

from lightning_compress.archive import load_archive
from lightning_compress.cli import main
from lightning_compress.cli.sweeps.trial import main as trial_main
from lightning_compress.search.sweeps.trials import TrialError
from tests.support.reports import write_numbers

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Checkpoint directory")
CONFIG = """
model: {class_path: examples.digits.DigitsClassifier}
data: {class_path: examples.digits.DigitsData}
trainer:
  accelerator: cpu
  devices: 1
  max_epochs: 1
  enable_progress_bar: false
  enable_model_summary: false
  num_sanity_val_steps: 0
  logger: false
  callbacks:
    - class_path: PruningCallback
      init_args: {sparsity: 0.9}
    - class_path: ModelCheckpoint
      init_args: {monitor: val_acc, mode: max}
sweep:
  trainer.callbacks.PruningCallback.sparsity: {low: 0.5, high: 0.98}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A folder with a config, and the shell in it."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")
    return tmp_path


@pytest.fixture
def written(monkeypatch):
    """Runs that are written by hand: 10,000 bytes times the density, and the sparsity as accuracy."""

    def fit(path, watch):
        sparsity = yaml.safe_load(path.read_text())["trainer"]["callbacks"][0]["init_args"]["sparsity"]
        if sparsity > 0.8:
            raise TrialError("need less")
        write_numbers(path.parent, size=round(10_000 * (1 - sparsity)), metrics={"val_acc": 1 - sparsity})
        return True

    monkeypatch.setattr("lightning_compress.cli.sweeps.command.fit_in_process", fit)


def sweep(words=""):
    main(["sweep", "--config", "config.yaml", *words.split()])


def test_a_trial_is_a_fit_that_runs_again_by_its_config(folder, capsys, monkeypatch):
    def fit(path, watch):
        """The process of a trial, in this one."""
        with monkeypatch.context() as words:
            words.setattr(sys, "argv", ["trial", "fit", "--config", str(path)])
            trial_main()
        return True

    monkeypatch.setattr("lightning_compress.cli.sweeps.command.fit_in_process", fit)
    sweep("--trials 1 --name one")
    printed = capsys.readouterr()
    trial = folder / "sweeps" / "one" / "trial_0000"
    assert "Study one: 1 trial, 1 ended" in printed.out
    assert "lightning-compress fit --config sweeps/one/trial_0000/config.yaml" in printed.out
    assert printed.err.startswith("trial 0: val_acc 0.")
    assert {"config.yaml", "report.json", "model.lcz", "checkpoints", "validations.jsonl"} <= {
        path.name for path in trial.iterdir()
    }
    weights = load_archive(trial / "model.lcz")
    fit(trial / "config.yaml", None)
    again = load_archive(trial / "model.lcz")
    assert all(again[name].equal(weight) for name, weight in weights.items())


def test_a_front_as_a_table_a_picture_and_numbers(written, folder, capsys):
    sweep("--trials 6 --seed 0 --sampler RandomSampler --plot front.png")
    printed = capsys.readouterr()
    failed = printed.err.count("failed: need less (sparsity=0.")
    assert 0 < failed < 6
    assert f"Study sweep: 6 trials, {6 - failed} ended, {failed} failed\n" in printed.out
    assert f"\n{failed} failed; trial " in printed.out
    assert max(map(len, printed.out.splitlines())) <= 80
    assert (folder / "front.png").read_bytes()[1:4] == b"PNG"
    sweep("--trials 6 --json")
    found = json.loads(capsys.readouterr().out)
    assert [trial["state"] for trial in found["trials"]].count("ended") == 6 - failed
    assert all(trial["front"] for trial in found["trials"] if trial["state"] == "ended")
    assert found["best"] is None


def test_the_best_settings_are_a_config(written, folder, capsys):
    sweep("--trials 8 --seed 0 --sampler RandomSampler --bytes 3000 --best best.yaml")
    best = yaml.safe_load((folder / "best.yaml").read_text())
    sparsity = best["trainer"]["callbacks"][0]["init_args"]["sparsity"]
    assert 0.7 <= sparsity <= 0.8
    assert best["trainer"]["default_root_dir"] is None
    assert "sweep" not in best
    assert best["seed_everything"] == 0  # that of the trials
    assert "Best of at most 3,000 bytes: trial " in capsys.readouterr().out
    main(["plan", "--config", "best.yaml", "--json"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "--stop_hopeless",
            "need --bytes for --stop_hopeless, got two aims, metric and bytes: Optuna stops runs of one",
        ),
        ("--sampler Best", "need --sampler as one of "),
        ("--study study.db", "need --study as the address of a database"),
        ("--suffix .onnx", "need --suffix as one of the formats"),
        ("--sweep {}", "need ranges in the section sweep of the config, got none"),
        (
            "--trials 1 --bytes 1 --best best.yaml",
            "need --bytes, and a trial whose file is not larger, to write --best, got none",
        ),
    ],
    ids=["stop", "sampler", "study", "suffix", "ranges", "best"],
)
def test_a_sweep_says_in_a_line_what_is_wrong(words, said, written):
    with pytest.raises(SystemExit) as stopped:
        sweep(f"--seed 0 {words}")
    assert str(stopped.value.code).startswith(f"lightning-compress: error: {said}")


def test_other_commands_pass_over_the_ranges(capsys):
    main(["plan", "--config", "config.yaml"])
    assert "PruningCallback: 0.9 sparse" in capsys.readouterr().out
