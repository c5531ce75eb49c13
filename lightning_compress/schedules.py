"""Schedules: the strength of a compression at each point of the run.

All schedules share one signature, ``Schedule = Callable[[float], float]``: progress of the run in [0, 1] -> strength
in [0, 1]. Strength 0 is the dense model, strength 1 the asked compression. ``begin`` and ``until`` are fractions of the
run. Any callable of this signature is a schedule. Those below are frozen dataclasses, so that they print, compare and
pickle.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from lightning_compress.arguments import check_between, check_function, check_number, check_number_answer

__all__ = [
    "Constant",
    "Cosine",
    "Cubic",
    "Exponential",
    "Linear",
    "Schedule",
    "Step",
    "check_schedule",
    "check_strengths",
    "strength_at",
]

Schedule: TypeAlias = Callable[[float], float]


def check_schedule(schedule: Schedule) -> None:
    """Refuse a schedule that a weight method cannot follow.

    Raises:
        TypeError: ``schedule`` is no function of the progress.
        ValueError: ``schedule`` leaves [0, 1] or does not end at 1.

    >>> check_schedule(Constant(0.5))
    Traceback (most recent call last):
    ValueError: need a schedule with strengths in [0, 1] that ends at 1, got schedule=Constant(value=0.5)
    """
    if _strengths(schedule)[-1] != 1:
        raise ValueError(f"need a schedule with strengths in [0, 1] that ends at 1, got schedule={schedule!r}")


def check_strengths(schedule: Schedule) -> None:
    """Refuse a schedule that is no function of the progress, or leaves [0, 1].

    Raises:
        TypeError: ``schedule`` is no function of the progress, or returns no number.
        ValueError: it leaves [0, 1].
    """
    _strengths(schedule)


def strength_at(schedule: Schedule, progress: float) -> float:
    """The strength of a schedule, which may be a function of a user.

    Raises:
        TypeError: it is no number.
        ValueError: it is not in [0, 1].

    >>> strength_at(lambda progress: 2 * progress, 0.75)
    Traceback (most recent call last):
    ValueError: need a schedule with strengths in [0, 1] that ends at 1, got schedule=..., which gives 1.5 at 0.75
    """
    strength = schedule(progress)
    check_number_answer("schedule(progress)", schedule, strength)
    if not 0 <= strength <= 1:
        raise ValueError(
            f"need a schedule with strengths in [0, 1] that ends at 1, got schedule={schedule!r}, which gives "
            f"{strength:g} at {progress:g}"
        )
    return float(strength)


def _strengths(schedule: Schedule) -> list[float]:
    """The strengths at even distances, from 0 to 1."""
    check_function("progress", schedule=schedule)
    return [strength_at(schedule, k / 100) for k in range(101)]


class _Schedule(ABC):
    # LightningCLI takes another class in place of a default instance only if not all its bases are dataclasses.
    @abstractmethod
    def __call__(self, progress: float) -> float: ...


@dataclass(frozen=True)
class Constant(_Schedule):
    """The same strength throughout: ``s(t) = value``.

    Raises:
        ValueError: ``value`` is not in [0, 1].

    >>> Constant()(0.0)
    1.0
    """

    value: float = 1.0

    def __post_init__(self) -> None:
        check_between(0, 1, value=self.value)

    def __call__(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True)
class Step(_Schedule):
    """Strength 0 before ``at``, strength 1 from there on: ``s(t) = [t >= at]``.

    Raises:
        ValueError: ``at`` is not in [0, 1].

    >>> Step(at=0.2)(0.19), Step(at=0.2)(0.2)
    (0.0, 1.0)
    """

    at: float = 0.2

    def __post_init__(self) -> None:
        check_between(0, 1, at=self.at)

    def __call__(self, progress: float) -> float:
        return float(progress >= self.at)


@dataclass(frozen=True)
class _Ramp(_Schedule):
    """From 0 at ``begin`` to 1 at ``until`` along a curve; subclasses give the curve on [0, 1]."""

    begin: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        check_number(begin=self.begin, until=self.until)
        if not 0 <= self.begin < self.until <= 1:
            raise ValueError(f"need 0 <= begin < until <= 1, got begin={self.begin!r}, until={self.until!r}")

    def __call__(self, progress: float) -> float:
        if progress <= self.begin:
            return 0.0
        if progress >= self.until:
            return 1.0
        return self._curve((progress - self.begin) / (self.until - self.begin))

    def _curve(self, x: float) -> float:
        raise NotImplementedError


@dataclass(frozen=True)
class Linear(_Ramp):
    """Even steps: ``s(x) = x`` with ``x = (t - begin) / (until - begin)`` clipped to [0, 1].

    Raises:
        ValueError: not ``0 <= begin < until <= 1``.

    >>> Linear(0.25, 0.75)(0.5)
    0.5
    """

    def _curve(self, x: float) -> float:
        return x


@dataclass(frozen=True)
class Cubic(_Ramp):
    """Fast at the start, while the model is redundant, and slow at the end: ``s(x) = 1 - (1 - x)^3``.

    The schedule of gradual pruning. Paper: Zhu and Gupta, "To prune, or not to prune: exploring the efficacy of
    pruning for model compression", https://arxiv.org/abs/1710.01878 (2017).

    Raises:
        ValueError: not ``0 <= begin < until <= 1``.

    >>> Cubic(0.0, 1.0)(0.5)
    0.875
    """

    def _curve(self, x: float) -> float:
        return 1.0 - (1.0 - x) ** 3


@dataclass(frozen=True)
class Cosine(_Ramp):
    """Slow at both ends: ``s(x) = (1 - cos(pi x)) / 2``.

    Raises:
        ValueError: not ``0 <= begin < until <= 1``.

    >>> round(Cosine(0.0, 1.0)(0.5), 6)
    0.5
    """

    def _curve(self, x: float) -> float:
        return (1.0 - math.cos(math.pi * x)) / 2.0


@dataclass(frozen=True)
class Exponential(_Ramp):
    """Steep at the start, flat at the end: ``s(x) = (1 - exp(-rate x)) / (1 - exp(-rate))``.

    Args:
        begin: fraction of the run at which the ramp starts.
        until: fraction of the run at which strength 1 is reached.
        rate: logarithm of the slope at the start divided by that at the end, above 0; near 0 the ramp is linear.

    Raises:
        ValueError: not ``0 <= begin < until <= 1``, or ``rate`` is not positive and finite.

    >>> round(Exponential(0.0, 1.0, rate=5.0)(0.5), 4)
    0.9241
    """

    rate: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(rate=self.rate)
        if not 0 < self.rate < math.inf:
            raise ValueError(f"need 0 < rate < inf, got rate={self.rate!r}")

    def _curve(self, x: float) -> float:
        return math.expm1(-self.rate * x) / math.expm1(-self.rate)
