"""Ranges: the values that a sweep may put at a key of the config."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from lightning_compress.arguments import check_number

if TYPE_CHECKING:
    from optuna import Trial

__all__ = ["Choices", "Interval", "Range", "ranges_of"]

_KEYS = ("low", "high", "log", "step", "choices")


@dataclass(frozen=True)
class Interval:
    """Numbers from ``low`` to ``high``, both included: integers if both of them and ``step`` are integers.

    Args:
        low: the smallest number.
        high: the largest number.
        log: whether the logarithm is drawn evenly, for numbers of several orders of magnitude.
        step: distance of the numbers that are drawn, counted from ``low``; None for any.

    Raises:
        TypeError: ``low``, ``high`` or ``step`` is not a number, or ``log`` neither true nor false.
        ValueError: an empty interval, one that ``log`` cannot draw from, or ``step`` with ``log``.

    >>> Interval(2, 8).ends, Interval(0.5, 0.9).is_whole
    ((2, 8), False)
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    def __post_init__(self) -> None:
        check_number(low=self.low, high=self.high, **({} if self.step is None else {"step": self.step}))
        if not isinstance(self.log, bool):
            raise TypeError(f"need log as true or false, got {self.log!r}")
        if not self.low < self.high:
            raise ValueError(f"need low < high, got low={self.low!r} and high={self.high!r}")
        if self.log and self.low <= 0:
            raise ValueError(f"need low > 0 with log, got low={self.low!r}")
        if self.log and self.step is not None:
            raise ValueError(f"need either log or step, got log=True and step={self.step!r}")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"need step > 0, got step={self.step!r}")

    @property
    def is_whole(self) -> bool:
        """Whether the numbers are integers."""
        return all(isinstance(number, int) for number in (self.low, self.high, 1 if self.step is None else self.step))

    @property
    def ends(self) -> tuple[float, float]:
        """The smallest and the largest number."""
        return self.low, self.high

    def suggest(self, trial: Trial, name: str) -> float:
        """A number that a trial of Optuna takes."""
        if self.is_whole:
            step = 1 if self.step is None else int(self.step)
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log, step=step)
        return trial.suggest_float(name, self.low, self.high, log=self.log, step=self.step)


@dataclass(frozen=True)
class Choices:
    """Some values: numbers, texts, null, or whole parts of a config.

    Args:
        values: the values.

    Raises:
        TypeError: ``values`` is no list.
        ValueError: ``values`` is empty, or holds a value twice.

    >>> Choices([4, 8]).ends
    (4, 8)
    """

    values: list[Any]

    def __post_init__(self) -> None:
        if not isinstance(self.values, list):
            raise TypeError(f"need choices as a list, got {self.values!r}")
        if not self.values:
            raise ValueError("need at least one of choices, got none")
        if len(set(self._labels)) < len(self.values):
            raise ValueError(f"need choices that differ, got {self.values!r}")

    @property
    def _labels(self) -> list[str]:
        return [json.dumps(value) for value in self.values]

    @property
    def ends(self) -> tuple[Any, ...]:
        """Every value."""
        return tuple(self.values)

    def suggest(self, trial: Trial, name: str) -> Any:
        """A value that a trial of Optuna takes; the study holds it as JSON."""
        return self.values[self._labels.index(trial.suggest_categorical(name, self._labels))]


Range: TypeAlias = Interval | Choices
"""The values of one key."""


def ranges_of(section: object) -> dict[str, Range]:
    """The ranges of the section ``sweep`` of a config.

    Args:
        section: dotted key -> ``{low: 0.5, high: 0.9}``, with ``log`` or ``step`` if need be, or
            ``{choices: [4, 8]}``.

    Raises:
        TypeError: the section, or a range, is no mapping, or a value is of another kind.
        ValueError: no range at all, an unknown key, or a range that cannot be drawn from.

    >>> ranges_of({"model.lr": {"low": 1e-4, "high": 1e-1, "log": True}, "data.batch_size": {"choices": [32, 64]}})
    {'model.lr': Interval(low=0.0001, high=0.1, log=True, step=None), 'data.batch_size': Choices(values=[32, 64])}
    """
    if section is None or section == {}:
        raise ValueError(
            "need ranges in the section sweep of the config, got none: sweep: {model.lr: {low: 1e-4, ...}}"
        )
    if not isinstance(section, Mapping):
        raise TypeError(f"need the section sweep as a mapping from keys to ranges, got {section!r}")
    return {str(name): _range(str(name), given) for name, given in section.items()}


def _range(name: str, given: object) -> Range:
    if not isinstance(given, Mapping):
        raise TypeError(f"need sweep[{name!r}] as {{low: ..., high: ...}} or {{choices: [...]}}, got {given!r}")
    for key in given:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"need keys among {', '.join(_KEYS)} in sweep[{name!r}], got {key!r}{hint}")
    if set(given) != {"choices"} and not {"low", "high"} <= set(given) - {"choices"} == set(given):
        raise ValueError(f"need either low and high or choices in sweep[{name!r}], got {', '.join(map(str, given))}")
    try:
        return Choices(given["choices"]) if "choices" in given else Interval(**given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} in sweep[{name!r}]") from error
