"""Workers on real SQLite studies; the runs are written by hand, in no time."""

import sqlite3
import threading

import optuna
import pytest
import yaml

from lightning_compress.search.sweeps.results import SweepResult
from lightning_compress.search.sweeps.settings import Settings
from lightning_compress.search.sweeps.studies import open_study, retry
from lightning_compress.search.sweeps.trials import TrialError
from lightning_compress.search.sweeps.workers import Worker
from tests.support.reports import write_numbers

optuna.logging.set_verbosity(optuna.logging.CRITICAL)
CONFIG = {"seed_everything": 0, "model": {"init_args": {"x": 1, "lr": 0.1}}, "trainer": {"callbacks": []}}
RANGES = {"model.x": {"low": 1, "high": 100}}


def settings(**changes):
    return Settings(
        **{
            "metric": "val_acc",
            "mode": "max",
            "suffix": ".lcz",
            "bytes": None,
            **changes,
            "ranges": RANGES,
            "config": CONFIG,
        }
    )


def x_of(path):
    return yaml.safe_load(path.read_text())["model"]["init_args"]["x"]


def bigger_is_better(path, watch):
    """A run whose file takes 10 x bytes, and whose accuracy is x %."""
    x = x_of(path)
    write_numbers(path.parent, size=10 * x, metrics={"val_acc": x / 100})
    return True


@pytest.fixture
def study(tmp_path):
    def opened(**changes):
        return open_study(f"sqlite:///{tmp_path}/s.db", "s", settings(**changes), sampler="RandomSampler", seed=0)

    return opened


@pytest.fixture
def worker(study, tmp_path):
    """A worker, and the lines that it says."""

    def made(fit=bigger_is_better, *, stop_hopeless=False, **changes):
        lines = []
        opened = study(**changes)
        kept = Worker(
            opened, settings(**changes), tmp_path / "trials", fit, stop_hopeless=stop_hopeless, say=lines.append
        )
        return kept, opened, lines

    return made


def test_every_trial_is_a_run_of_the_config_in_a_folder_of_its_own(worker, tmp_path):
    kept, opened, lines = worker()
    kept.run(4)
    found = SweepResult.of(opened)
    assert [trial.state for trial in found.trials] == ["ended"] * 4
    for trial in found.trials:
        x = trial.settings["model.x"]
        assert (trial.bytes, trial.metric, trial.dense_bytes) == (10 * x, x / 100, 1000)
        assert trial.folder == str(tmp_path / "trials" / f"trial_{trial.number:04}")
    assert lines[0].startswith(f"trial 0: val_acc {found.trials[0].metric:.4f}, {found.trials[0].bytes:,} bytes (x=")


def test_a_study_goes_on_where_it_stopped(worker):
    worker()[0].run(2)
    kept, opened, _ = worker()
    kept.run(5)
    kept.run(5)
    assert len(opened.trials) == 5


def test_failures_are_told_and_the_sweep_goes_on(worker):
    def odd(path, watch):
        if x_of(path) % 2:
            raise TrialError("need an even x")
        return bigger_is_better(path, watch)

    kept, opened, lines = worker(odd)
    kept.run(8)
    found = SweepResult.of(opened)
    failed = [trial for trial in found.trials if trial.state == "failed"]
    assert 0 < len(failed) < 8
    assert {trial.reason for trial in failed} == {"need an even x"}
    assert sum("failed: need an even x (x=" in line for line in lines) == len(failed)
    assert f"{len(failed)} failed; trial {failed[0].number}: need an even x" in str(found)


def test_a_sweep_whose_trials_all_fail_ends_with_the_first_reason(worker):
    def refuse(path, watch):
        raise TrialError(f"need another x than {x_of(path)}")

    kept, opened, _ = worker(refuse)
    with pytest.raises(
        ValueError, match="need a trial that comes to its end, got 5 that failed; the first: need another"
    ):
        kept.run(30)
    assert len(opened.trials) == 5


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"metrics": {"val_loss": 0.1}}, "need a finite val_acc in the last validation, got none; .*: val_loss"),
        (
            {"unvalidated": 12},
            "need a validation at the end of the run, got 12 steps after the last one: val_acc is not",
        ),
        (
            {"changed": True},
            "need a validation of the model in the file, got one of other weights",
        ),
        ({"metrics": {"val_acc": None}}, "need a finite val_acc .*: none"),
        ({"failures": {"model.lcz": "no space left"}}, r"need a \.lcz file, got none: no space left"),
    ],
    ids=["missing", "earlier", "changed", "nan", "file"],
)
def test_a_run_without_a_number_has_failed(numbers, said, worker):
    def fit(path, watch):
        write_numbers(path.parent, size=10, **numbers)
        return True

    with pytest.raises(ValueError, match=said):
        worker(fit)[0].run(1)


def test_a_run_without_a_report_has_failed(worker):
    with pytest.raises(ValueError, match=r"FileNotFoundError: .*report\.json"):
        worker(lambda path, watch: True)[0].run(1)


def test_a_limit_makes_the_metric_the_only_aim(worker):
    kept, opened, _ = worker(bytes=500)
    kept.run(12)
    found = SweepResult.of(opened)
    fitting = [trial for trial in found.trials if trial.bytes <= 500]
    assert 0 < len(fitting) < 12
    assert found.best == max(fitting, key=lambda trial: trial.metric)
    assert opened.trials[found.best.number].constraints == {"bytes": found.best.bytes - 500}
    assert f"Best of at most 500 bytes: trial {found.best.number}\n" in str(found)


def test_hopeless_runs_are_stopped(worker):
    """Runs with a file that does not fit are better, and stop nobody."""
    seen = []

    def fit(path, watch):
        x = x_of(path)
        for epoch in range(2):
            if watch({"val_acc": x / 100 * (epoch + 1) / 2, "other": 1.0}):
                seen.append((x, epoch))
                return False
        return bigger_is_better(path, watch)

    kept, opened, lines = worker(fit, stop_hopeless=True, bytes=500)
    kept.run(20)
    found = SweepResult.of(opened)
    stopped = [trial for trial in found.trials if trial.state == "stopped"]
    assert len(stopped) == len(seen) > 0
    assert all(epoch == 0 for _, epoch in seen)
    first = [trial for trial in found.trials if trial.number < stopped[0].number]
    fitting = sorted(trial.settings["model.x"] for trial in first if trial.bytes and trial.bytes <= 500)
    assert len(fitting) >= 5
    assert stopped[0].settings["model.x"] < fitting[len(fitting) // 2]
    assert any("was stopped: three quarters of the others were better" in line for line in lines)


def test_runs_with_two_aims_are_not_stopped(worker):
    with pytest.raises(
        ValueError, match="need --bytes for --stop_hopeless, got two aims, metric and bytes: Optuna stops"
    ):
        worker(stop_hopeless=True)


def test_two_workers_share_the_trials(worker, study):
    """No trial is run twice, and there are as many as were asked for."""
    pairs = [worker() for _ in range(2)]
    threads = [threading.Thread(target=kept.run, args=(10,), kwargs={"seconds": 0.01}) for kept, _, _ in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = SweepResult.of(study())
    assert [trial.state for trial in found.trials] == ["ended"] * 10
    assert len({trial.folder for trial in found.trials}) == 10


def test_a_trial_whose_worker_is_lost_is_taken_up_again(worker, study, tmp_path):
    """The trial of a silent worker, whose signs of life have ended long ago."""
    url = f"sqlite:///{tmp_path}/s.db"
    study()
    silent = optuna.load_study(study_name="s", storage=url).ask()  # without a heartbeat of its own
    x = silent.suggest_int("model.x", 1, 100)
    with sqlite3.connect(tmp_path / "s.db") as connection:
        row = (silent._trial_id, "2000-01-01 00:00:00")
        connection.execute("INSERT INTO trial_heartbeats (trial_id, heartbeat) VALUES (?, ?)", row)
    kept, opened, lines = worker()
    kept.run(2)
    found = SweepResult.of(opened)
    assert [trial.number for trial in found.trials] == [1, 2]
    assert found.trials[0].settings == {"model.x": x}
    assert lines[0] == "trial 1 takes trial 0 up again, whose worker was lost"


def test_an_interrupted_trial_is_for_the_next_worker(worker):
    def interrupted(path, watch):
        raise KeyboardInterrupt

    kept, opened, lines = worker(interrupted)
    with pytest.raises(KeyboardInterrupt):
        kept.run(2)
    assert lines == ["trial 0 is interrupted; the next worker takes it up again"]
    settings = opened.trials[0].params
    kept, opened, _ = worker()
    kept.run(2)
    found = SweepResult.of(opened)
    assert [(trial.number, trial.state) for trial in found.trials] == [(1, "ended"), (2, "ended")]
    assert found.trials[0].settings == settings


def test_a_folder_of_another_study_is_not_written_to(worker, tmp_path):
    (tmp_path / "trials" / "trial_0000").mkdir(parents=True)
    with pytest.raises(
        ValueError, match=r"need a folder for the trial that does not exist, got .*trial_0000: pass --f"
    ):
        worker()[0].run(1)


def test_the_best_trial_of_a_retry_keeps_its_values(worker, study):
    kept, opened, _ = worker()
    kept.run(1)
    retry(opened, opened.trials[0])
    kept.run(1)
    found = SweepResult.of(study())
    assert [trial.number for trial in found.trials] == [1]
    assert found.trials[0].settings == {"model.x": opened.trials[0].params["model.x"]}
