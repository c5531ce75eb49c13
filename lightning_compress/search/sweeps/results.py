"""Results of a sweep: its trials, the Pareto front, and the best one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Literal

from lightning_compress.messages import WIDTH, wrapped
from lightning_compress.report.views.layers import Table
from lightning_compress.report.views.notebooks import frame, table_html
from lightning_compress.search.comparison.fronts import on_front
from lightning_compress.search.comparison.plots import Point, draw
from lightning_compress.search.sweeps.ranges import ranges_of
from lightning_compress.search.sweeps.studies import counted, stored_settings
from lightning_compress.search.views.tables import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from optuna import Study
    from optuna.trial import FrozenTrial
    from pandas import DataFrame

__all__ = ["SweepResult", "SweptTrial", "settings_text"]

_STATES = {"COMPLETE": "ended", "PRUNED": "stopped", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


@dataclass(frozen=True)
class SweptTrial:
    """One trial.

    Attributes:
        number: in the study.
        state: ``"ended"``, ``"stopped"``, ``"failed"``, ``"running"`` or ``"waiting"``.
        settings: dotted key -> the value that the trial put in.
        metric: that of the last validation; None if the trial has not come to its end.
        bytes: size of its file.
        dense_bytes: size of the archive of the dense model.
        seconds: that the run took.
        folder: with its config, report, checkpoints and logs.
        reason: the reason why it failed.
        front: whether it is on the Pareto front.
    """

    number: int
    state: str
    settings: dict[str, Any]
    metric: float | None
    bytes: int | None
    dense_bytes: int | None
    seconds: float | None
    folder: str
    reason: str
    front: bool = False


@dataclass(frozen=True)
class SweepResult:
    """The trials of a study.

    Attributes:
        name: that of the study.
        metric: name of the metric.
        mode: whether it is better when it is smaller (``"min"``) or larger (``"max"``).
        suffix: that of the file whose bytes count.
        bytes: the largest number of bytes, if there is one.
        trials: in the order in which they began; trials that another one has taken up again are left out.
    """

    name: str
    metric: str
    mode: Literal["min", "max"]
    suffix: str
    bytes: int | None
    trials: tuple[SweptTrial, ...]

    @classmethod
    def of(cls, study: Study) -> SweepResult:
        """The result of a study of Optuna that a sweep has made.

        Raises:
            ValueError: the study was made by other code.
        """
        settings = stored_settings(study)
        if not settings:
            raise ValueError(f"need a study that a sweep has made, got {study.study_name!r}")
        trials = [_trial(trial, settings["ranges"]) for trial in counted(study.get_trials(deepcopy=False))]
        return cls(
            name=study.study_name,
            metric=settings["metric"],
            mode=settings["mode"],
            suffix=settings["suffix"],
            bytes=settings["bytes"],
            trials=_marked(trials, settings["mode"]),
        )

    @property
    def front(self) -> tuple[SweptTrial, ...]:
        """The trials on the Pareto front, the smallest file first."""
        return tuple(sorted((trial for trial in self.trials if trial.front), key=lambda trial: trial.bytes or 0))

    @property
    def best(self) -> SweptTrial | None:
        """The trial with the best metric among those whose file fits ``bytes``; None if there is none, or no limit."""
        limit = self.bytes
        fitting = [trial for trial in self.front if limit is not None and (trial.bytes or 0) <= limit]
        return fitting[-1] if fitting else None  # along the front, the metric becomes better with the bytes

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers and text, for ``json.dumps``."""
        return {**asdict(self), "best": None if self.best is None else self.best.number}

    def to_json(self) -> str:
        """The same as a text in JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_pandas(self) -> DataFrame:
        """One row for each trial.

        Raises:
            ImportError: pandas is not installed.
        """
        return frame(map(asdict, self.trials))

    def draw(self) -> Figure:
        """The metric against the bytes, with the Pareto front.

        Raises:
            ImportError: matplotlib is not installed (extra ``plots``).
            ValueError: no trial has come to its end.
        """
        ended = [trial for trial in self.trials if trial.metric is not None and trial.bytes is not None]
        if not ended:
            raise ValueError("need trials that came to their end to draw, got none")
        return draw(
            [Point(str(one.number), one.bytes or 0, one.metric or 0.0, one.front) for one in ended], self.metric
        )

    def __str__(self) -> str:
        return "\n\n".join(part for part in [self._headline(), self._text(), self._legend()] if part)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return table_html(self._table(with_settings=True), [self._legend()])

    def _headline(self) -> str:
        states = [trial.state for trial in self.trials]
        told = ", ".join(
            f"{states.count(state)} {state}" for state in dict.fromkeys(_STATES.values()) if state in states
        )
        best = "smaller" if self.mode == "min" else "larger"
        return (
            f"Study {self.name}: {len(states)} trial{'s' if len(states) != 1 else ''}, {told or 'none yet'}\n"
            f"Pareto front: no other trial has a {best} {self.metric} in as few bytes ({self.suffix})"
        )

    def _text(self) -> str:
        if not self.front:
            return ""
        text = as_text(self._table(with_settings=True))
        if max(map(len, text.splitlines())) <= WIDTH:
            return text
        lines = [wrapped(f"{one.number} {settings_text(one.settings)}") for one in self.front]
        return "\n".join([as_text(self._table(with_settings=False)), "", *lines])

    def _legend(self) -> str:
        lines = []
        if self.best is not None:
            lines.append(f"Best of at most {self.bytes:,} bytes: trial {self.best.number}")
        elif self.bytes is not None:
            lines.append(f"No trial has a file of at most {self.bytes:,} bytes")
        failed = [trial for trial in self.trials if trial.state == "failed"]
        if failed:
            lines.append(f"{len(failed)} failed; trial {failed[0].number}: {failed[0].reason}")
        chosen = self.best or (self.front[-1] if self.front else None)
        if chosen is not None:
            lines.append(f"Trial {chosen.number} again:")
        told = [wrapped(line) for line in lines]
        if chosen is not None:  # a line that can be copied
            told.append(f"  lightning-compress fit --config {quote(str(Path(chosen.folder) / 'config.yaml'))}")
        return "\n".join(told)

    def _table(self, *, with_settings: bool) -> Table:
        names = _short(list(self.trials[0].settings)) if self.trials and with_settings else {}
        rows = [
            (
                str(trial.number),
                f"{trial.bytes:,}",
                f"{trial.dense_bytes / trial.bytes:.2f}x" if self.suffix == ".lcz" and trial.dense_bytes else "",
                f"{trial.metric:.4f}",
                *(_shown(trial.settings[name]) for name in names),
            )
            for trial in self.front
            if trial.bytes is not None and trial.metric is not None
        ]
        return Table(self._headline(), ("trial", "bytes", "smaller", self.metric, *names.values()), tuple(rows))


def _trial(trial: FrozenTrial, section: dict[str, Any]) -> SweptTrial:
    found = trial.user_attrs
    categories = {name for name, chosen in ranges_of(section).items() if hasattr(chosen, "values")}
    lost = "its worker was lost" if trial.state.name == "FAIL" else ""
    ended = trial.state.name == "COMPLETE"
    return SweptTrial(
        number=trial.number,
        state=_STATES[trial.state.name],
        settings={name: json.loads(v) if name in categories else v for name, v in trial.params.items()},
        metric=found.get("metric") if ended else None,
        bytes=found.get("bytes") if ended else None,
        dense_bytes=found.get("dense_bytes") if ended else None,
        seconds=found.get("seconds") if ended else None,
        folder=found.get("folder", ""),
        reason=found.get("reason", lost),
    )


def _marked(trials: Sequence[SweptTrial], mode: str) -> tuple[SweptTrial, ...]:
    front = on_front([(trial.bytes, trial.metric) for trial in trials], mode)
    return tuple(replace(trial, front=best) for trial, best in zip(trials, front, strict=True))


def _short(names: Sequence[str]) -> dict[str, str]:
    """Dotted key -> its last part, or the last two where that is needed to tell keys apart."""
    last = [name.rpartition(".")[2] for name in names]
    two = [".".join(name.split(".")[-2:]) for name in names]
    return {name: one if last.count(one) == 1 else other for name, one, other in zip(names, last, two, strict=True)}


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict) and "class_path" in value:
        return str(value["class_path"]).rpartition(".")[2]
    return value if isinstance(value, str) else json.dumps(value)


def settings_text(settings: dict[str, Any]) -> str:
    """The settings of a trial in a line.

    >>> settings_text({"model.lr": 0.00123456, "data.batch_size": 32})
    'lr=0.00123 batch_size=32'
    """
    short = _short(list(settings))
    return " ".join(f"{short[name]}={_shown(value)}" for name, value in settings.items())
