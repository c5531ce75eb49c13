"""Workers: processes that run the trials of one study, alone or beside others."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from lightning_compress.drafts import draft_of
from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.saved_reports import NAME, read_report
from lightning_compress.search.sweeps.keys import key_paths
from lightning_compress.search.sweeps.ranges import ranges_of
from lightning_compress.search.sweeps.results import settings_text
from lightning_compress.search.sweeps.settings import Settings
from lightning_compress.search.sweeps.studies import counted, fail_lost, retry
from lightning_compress.search.sweeps.trials import Fit, TrialError, is_hopeless, trial_config

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

__all__ = ["Worker"]

_TRIED = 5  # trials of a worker that all fail, before it gives up


class Worker:
    """One process of a sweep.

    Args:
        study: of Optuna, in a database that other workers may share.
        settings: the aims and the config.
        folder: the folder of the folders of trials.
        fit: runs a config.
        stop_hopeless: whether a run is stopped that is worse than three quarters of the others were.
        say: prints a line.

    Raises:
        ValueError: a range is of no key in the config, or of the value of another range; runs are to be stopped, though
            there are two aims.
    """

    def __init__(
        self,
        study: Study,
        settings: Settings,
        folder: Path,
        fit: Fit,
        *,
        stop_hopeless: bool = False,
        say: Callable[[str], None] = print,
    ) -> None:
        if stop_hopeless and settings.bytes is None:
            raise ValueError(
                "need --bytes for --stop_hopeless, got two aims, metric and bytes: Optuna stops runs of one aim only. "
                "With --bytes 20000 the aim is the metric of files of at most 20,000 bytes"
            )
        self._study = study
        self._settings = settings
        self._folder = folder
        self._fit = fit
        self._stop_hopeless = stop_hopeless
        self._say = say
        self._ranges = ranges_of(settings.ranges)
        self._paths = key_paths(settings.config, self._ranges)
        self._reasons: list[str] = []
        self._ended = 0

    def run(self, count: int, *, seconds: float = 5.0) -> None:
        """Run trials until the study has ``count`` of them, and those of other workers have ended as well.

        A trial of a worker that is lost meanwhile is taken up.

        Args:
            count: number of trials of the study, of all workers together.
            seconds: between two looks at the trials of other workers.

        Raises:
            ValueError: every trial failed; the error gives the first reason.
        """
        waiting = False
        while True:
            fail_lost(self._study)
            trials = counted(self._study.get_trials(deepcopy=False))
            states = [trial.state.name for trial in trials]
            if "WAITING" in states or len(trials) < count:
                self._run_one(count)
                waiting = False
            elif "RUNNING" in states:
                if not waiting:
                    self._say(f"waiting for {states.count('RUNNING')} of other workers")
                waiting = True
                time.sleep(seconds)
            else:
                break
            if len(self._reasons) >= min(count, _TRIED) and not self._ended:
                break
        if (
            self._reasons
            and not any(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials)
            and not self._ended
        ):
            tried = len(self._reasons)
            raise ValueError(
                f"need a trial that comes to its end, got {tried} that failed; the first: {self._reasons[0]}"
            )

    def _run_one(self, count: int) -> None:
        begun: list[Trial] = []

        def objective(trial: Trial) -> float | list[float]:
            begun.append(trial)
            return self._objective(trial, count)

        try:
            self._study.optimize(objective, n_trials=1, catch=(Exception,))
        except KeyboardInterrupt:
            for trial in begun:
                retry(self._study, self._study.get_trials(deepcopy=False)[trial.number])
                self._say(f"trial {trial.number} is interrupted; the next worker takes it up again")
            raise

    def _objective(self, trial: Trial, count: int) -> float | list[float]:
        from optuna import TrialPruned

        trials = self._study.get_trials(deepcopy=False)
        before, again = counted(trials), trials[trial.number].system_attrs.get("retry_history", [])
        if not again and sum(other.number < trial.number for other in before) >= count:
            trial.set_user_attr("surplus", True)
            raise TrialError("another worker began the last trial at the same instant")
        if again:
            self._say(f"trial {trial.number} takes trial {again[-1]} up again, whose worker was lost")
        begun = time.monotonic()
        values = {name: chosen.suggest(trial, name) for name, chosen in self._ranges.items()}
        settings = settings_text(values)
        try:
            report = self._run(trial, values)
        except Exception as error:
            reason = str(error) if isinstance(error, TrialError) else f"{type(error).__name__}: {error}"
            trial.set_user_attr("reason", reason)
            self._reasons.append(reason)
            self._say(f"trial {trial.number} failed: {reason} ({settings})")
            raise
        self._ended += 1
        if report is None:
            self._say(f"trial {trial.number} was stopped: three quarters of the others were better ({settings})")
            raise TrialPruned
        trial.set_user_attr("seconds", round(time.monotonic() - begun, 1))
        metric, size = trial.user_attrs["metric"], trial.user_attrs["bytes"]
        self._say(f"trial {trial.number}: {self._settings.metric} {metric:.4f}, {size:,} bytes ({settings})")
        return [metric, size] if self._settings.bytes is None else metric

    def _run(self, trial: Trial, values: dict[str, Any]) -> Comparison | None:
        """Run a trial in its folder; None if it was stopped."""
        folder = self._folder / f"trial_{trial.number:04}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            raise TrialError(f"need a folder for the trial that does not exist, got {folder}: pass --folder") from None
        chosen = {self._paths[name]: value for name, value in values.items()}
        path = folder / "config.yaml"
        config = trial_config(self._settings.config, chosen, folder)
        with draft_of(path) as draft:
            draft.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        trial.set_user_attr("folder", str(folder))
        trial.set_user_attr("host", socket.gethostname())
        seen: list[float] = []

        def watch(metrics: Mapping[str, float]) -> bool:
            if not self._stop_hopeless or self._settings.metric not in metrics:
                return False
            trial.report(metrics[self._settings.metric], len(seen))
            seen.append(metrics[self._settings.metric])
            return is_hopeless(seen, self._others(), self._settings.mode)

        if not self._fit(path, watch):
            return None
        report = read_report(folder / NAME)
        self._note(trial, report)
        return report

    def _note(self, trial: Trial, report: Comparison) -> None:
        """Write the numbers of a run into the study."""
        settings = self._settings
        size, metric = report.bytes(settings.suffix), report.metric(settings.metric)
        if metric is None:
            there = ", ".join(name for name in report.metrics_after if report.metric(name) is not None) or "none"
            raise TrialError(
                f"need a finite {settings.metric} in the last validation, got none; the finite metrics are: {there}"
            )
        if report.unvalidated:
            raise TrialError(
                f"need a validation at the end of the run, got {report.unvalidated} steps after the last one: "
                f"{settings.metric} is not that of the model in the file. Let check_val_every_n_epoch divide max_epochs"
            )
        if report.changed:
            raise TrialError(
                "need a validation of the model in the file, got one of other weights, which a callback put in their "
                f"place: {settings.metric} is not that of the file. Let it leave these weights in on_train_end"
            )
        if size is None:
            raise TrialError(f"need a {settings.suffix} file, got none: {'; '.join(report.failures.values())}")
        numbers = {"metric": metric, "bytes": size, "dense_bytes": report.before.archive_bytes}
        for name, value in numbers.items():
            trial.set_user_attr(name, value)
        if settings.bytes is not None:
            trial.set_constraint("bytes", float(size - settings.bytes))

    def _others(self) -> list[list[float]]:
        """The metric of all validations of each run that came to its end with a file that fits."""
        ended = [trial for trial in self._study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
        values = [trial.intermediate_values for trial in ended if self._fits(trial)]
        return [[one[step] for step in sorted(one)] for one in values]

    def _fits(self, trial: FrozenTrial) -> bool:
        limit = self._settings.bytes
        return limit is None or trial.user_attrs["bytes"] <= limit
