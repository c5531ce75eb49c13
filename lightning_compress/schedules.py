"""Schedules: how strong a compression is at each point of the run.

All schedules share one signature, ``Schedule = Callable[[float], float]``: progress of the run in [0, 1] -> strength
in [0, 1]. Strength 0 is the dense model, strength 1 the compression that was asked for. ``begin`` and ``until`` are
fractions of the run. Any callable of this signature is a schedule; those below are frozen dataclasses so that they
print, compare and pickle.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Constant", "Cosine", "Cubic", "Exponential", "Linear", "Schedule", "Step"]

Schedule: TypeAlias = Callable[[float], float]


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
        if not 0 <= self.value <= 1:
            raise ValueError(f"need 0 <= value <= 1, got value={self.value}")

    def __call__(self, progress: float) -> float:
        return self.value


@dataclass(frozen=True)
class Step(_Schedule):
    """Nothing before ``at``, everything from there on: ``s(t) = [t >= at]``.

    Raises:
        ValueError: ``at`` is not in [0, 1].

    >>> Step(at=0.2)(0.19), Step(at=0.2)(0.2)
    (0.0, 1.0)
    """

    at: float = 0.2

    def __post_init__(self) -> None:
        if not 0 <= self.at <= 1:
            raise ValueError(f"need 0 <= at <= 1, got at={self.at}")

    def __call__(self, progress: float) -> float:
        return float(progress >= self.at)


@dataclass(frozen=True)
class _Ramp(_Schedule):
    """From 0 at ``begin`` to 1 at ``until`` along a curve; subclasses give the curve on [0, 1]."""

    begin: float = 0.0
    until: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.until <= 1:
            raise ValueError(f"need 0 <= begin < until <= 1, got begin={self.begin}, until={self.until}")

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
    """Fast while there is much to remove, slow at the end: ``s(x) = 1 - (1 - x)^3``.

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
    """Steep first, flat at the end: ``s(x) = (1 - exp(-rate x)) / (1 - exp(-rate))``.

    Args:
        begin: fraction of the run at which the ramp starts.
        until: fraction of the run at which strength 1 is reached.
        rate: how much steeper the start is than the end, above 0; near 0 the ramp is linear.

    Raises:
        ValueError: not ``0 <= begin < until <= 1``, or ``rate <= 0``.

    >>> round(Exponential(0.0, 1.0, rate=5.0)(0.5), 4)
    0.9241
    """

    rate: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.rate > 0:
            raise ValueError(f"need rate > 0, got rate={self.rate}")

    def _curve(self, x: float) -> float:
        return math.expm1(-self.rate * x) / math.expm1(-self.rate)
