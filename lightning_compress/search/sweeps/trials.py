"""Trials: the config of one run of a sweep, in a folder of its own, and the rule that stops a hopeless one."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count
from pathlib import Path, PurePath
from statistics import quantiles
from typing import Any, Literal, TypeAlias

from lightning_compress.search.sweeps.keys import KeyPath, put
from lightning_compress.search.sweeps.settings import callbacks_of

__all__ = ["Fit", "TrialError", "Watch", "check_places", "is_hopeless", "seeded", "trial_config"]

Watch: TypeAlias = Callable[[Mapping[str, float]], bool]
"""Metrics of a validation -> whether the run is to stop."""

Fit: TypeAlias = Callable[[Path, Watch], bool]
"""Config of a run, its watch -> whether the run came to its end; raises :class:`TrialError` if it failed."""

_LEAST = 5  # runs that a run is compared with, before it is stopped
_BEGIN = 0.25  # of the validations, before a run is stopped
_LATEST = 3  # validations that count
_PLACES = ("default_root_dir", "save_dir", "dirpath")


class TrialError(RuntimeError):
    """A run of a sweep failed; the message is the reason."""


def seeded(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with a fixed seed, by default 0; ``true`` draws one, which would be another in each run.

    >>> seeded({"seed_everything": True}), seeded({"seed_everything": 3})
    ({'seed_everything': 0}, {'seed_everything': 3})
    """
    seed = config.get("seed_everything")
    return {**config, "seed_everything": 0 if isinstance(seed, bool) or seed is None else seed}


def trial_config(config: Mapping[str, Any], values: Mapping[KeyPath, Any], folder: Path) -> dict[str, Any]:
    """The config of one trial: values put in, a fixed seed, and everything that the run writes in its own folder.

    A report is added if the config has none.

    Args:
        config: the config that all trials have in common.
        values: path -> value.
        folder: the folder of the trial.
    """
    changed = seeded(put(config, values))
    trainer = changed["trainer"] = dict(changed.get("trainer") or {})
    trainer["default_root_dir"] = str(folder)
    loggers = trainer.get("logger")
    for entry in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(entry, dict) and "save_dir" in (entry.get("init_args") or {}):
            entry["init_args"]["save_dir"] = str(folder)
    callbacks = trainer["callbacks"] = callbacks_of(changed)
    reports = [entry for entry in callbacks if str(entry.get("class_path")).endswith("CompressionReport")]
    if not reports:
        reports = [{"class_path": "lightning_compress.CompressionReport", "init_args": {}}]
        callbacks.extend(reports)
    given = [entry["init_args"] for entry in callbacks if (entry.get("init_args") or {}).get("dirpath")]
    moved = _moved([str(arguments["dirpath"]) for arguments in given], folder)
    for arguments in given:
        arguments["dirpath"] = moved[str(arguments["dirpath"])]
    reports[0]["init_args"] = {**(reports[0].get("init_args") or {}), "dirpath": str(folder)}
    return changed


def check_places(paths: Mapping[str, KeyPath]) -> None:
    """Refuse ranges of places: a trial writes into a folder of its own.

    Args:
        paths: dotted key of each range -> its path.

    Raises:
        ValueError: there is such a range.

    >>> check_places({"trainer.default_root_dir": ("trainer", "default_root_dir")})
    Traceback (most recent call last):
    ValueError: need settings of a run in sweep, got 'trainer.default_root_dir': every trial has a folder of its own
    """
    for name, path in paths.items():
        if path[-1] in _PLACES and path[0] == "trainer":
            raise ValueError(f"need settings of a run in sweep, got {name!r}: every trial has a folder of its own")


def _moved(paths: Sequence[str], folder: Path) -> dict[str, str]:
    """Path -> the folder in ``folder`` that takes its place, with its last name; a number tells equal names apart.

    >>> [*_moved(["a/best", "b/best", "a/best"], Path("trial")).values()]
    ['trial/best', 'trial/best_2']
    """
    names: dict[str, str] = {}
    for path in dict.fromkeys(paths):
        last = PurePath(os.path.abspath(path)).name
        free = chain([last], (f"{last}_{number}" for number in count(2)))
        names[path] = next(name for name in free if name not in names.values())
    return {path: str(folder / name) for path, name in names.items()}


def is_hopeless(values: Sequence[float], others: Sequence[Sequence[float]], mode: Literal["min", "max"]) -> bool:
    """Whether a run is worse now than three quarters of the runs that came to their end were at the same validation.

    The best of the latest three validations counts. An earlier one may have been of a model that was hardly compressed.

    Args:
        values: the metric of its validations so far.
        others: that of all validations of each other run; of fewer than five runs nothing follows, and nothing from the
            first quarter of the validations.
        mode: whether the metric is better when it is smaller (``"min"``) or larger (``"max"``).

    >>> others = [[0.1 * run, 0.2 * run] for run in range(1, 6)]
    >>> is_hopeless([0.15], others, "max"), is_hopeless([0.25], others, "max")
    (True, False)
    """
    count = len(values)
    longer = [other for other in others if len(other) >= count]
    if len(longer) < _LEAST or count < _BEGIN * max(map(len, longer)):
        return False
    best = max if mode == "max" else min
    latest = slice(max(0, count - _LATEST), count)
    lower, _, upper = quantiles([best(other[latest]) for other in longer], n=4, method="inclusive")
    mine = best(values[latest])
    return mine < lower if mode == "max" else mine > upper
