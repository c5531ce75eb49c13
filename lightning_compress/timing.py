"""Timing in turns, A B B A: one clock for the report, for budgets and for benchmarks.

A machine that is busy for a moment slows all candidates alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from statistics import median, quantiles
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils.benchmark import Timer, timer

from lightning_compress.example_inputs import ExampleInput, call, device_of, evaluating, on_device

__all__ = ["Clock", "Latency", "measure_latencies", "time_in_turns", "time_ratio"]

Clock: TypeAlias = Callable[[], float]
"""A function that returns seconds: of the wall, of the process (``time.process_time``)."""

_ROUNDS, _SECONDS = 20, 0.01  # turns of each function, and the least time of a turn
_RATIO_SECONDS = 0.02  # the time of a turn in a ratio


@dataclass(frozen=True)
class Latency:
    """Times of a forward pass, in seconds.

    Attributes:
        median: half of the runs were faster.
        lower: a quarter of the runs was faster.
        upper: a quarter of the runs was slower.
        device: ``"cpu"``, ``"cuda"``.
    """

    median: float
    lower: float
    upper: float
    device: str

    def differs(self, other: Latency) -> bool:
        """Whether the middle halves of the runs lie apart."""
        return self.upper < other.lower or other.upper < self.lower

    def ratio(self, other: Latency) -> float:
        """How many times as long these runs take as the others.

        The ratio of the medians or that of the lower quartiles counts, whichever is nearer to 1: a machine that is busy
        during half of the runs moves a median, and hardly a lower quartile.

        >>> busy, quiet = Latency(0.078, 0.039, 0.093, "cpu"), Latency(0.025, 0.024, 0.025, "cpu")
        >>> round(busy.ratio(quiet), 3), round(quiet.ratio(busy), 3)
        (1.625, 0.615)
        """
        medians, lowers = _quotient(self.median, other.median), _quotient(self.lower, other.lower)
        return max(1.0, min(medians, lowers)) if medians > 1 else min(1.0, max(medians, lowers))


def _quotient(one: float, other: float) -> float:
    return one / other if other else math.inf


def measure_latencies(modules: Sequence[nn.Module], example_input: ExampleInput) -> list[Latency]:
    """Time forward passes of several modules in turns.

    The modules run eagerly, in evaluation mode, without gradients, on one CPU thread. They are left as they were.

    Args:
        modules: one or more, each on the device where it is to be measured.
        example_input: a tensor, a tuple of positional or a mapping of keyword arguments of ``forward``.

    >>> len(measure_latencies([nn.Linear(3, 2), nn.Linear(3, 1)], torch.zeros(1, 3)))
    2
    """
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        for module in modules:
            stack.enter_context(evaluating(module))
        examples = [on_device(example_input, device_of(module)) for module in modules]
        runs = [partial(call, module, example) for module, example in zip(modules, examples, strict=True)]
        return time_in_turns(runs, device_of(modules[0]).type)


def time_in_turns(runs: Sequence[Callable[[], Any]], device: str) -> list[Latency]:
    """Time functions in turns.

    Args:
        runs: the functions.
        device: where they compute, ``"cpu"`` or ``"cuda"``.
    """
    times: list[list[float]] = [[] for _ in runs]
    turns = list(zip(_timers(runs, timer), times, strict=True))
    for _ in range(_ROUNDS):
        for stopwatch, seen in turns:
            seen.extend(stopwatch.blocked_autorange(min_run_time=_SECONDS).times)
        turns.reverse()  # the machine may be slow in a rhythm, which must not always meet the same function
    found = [quantiles(seen, method="inclusive") for seen in times]
    return [Latency(middle, lower, upper, device) for lower, middle, upper in found]


def time_ratio(run: Callable[[], Any], reference: Callable[[], Any], *, rounds: int = 9, clock: Clock = timer) -> float:
    r"""Time of ``run`` divided by the time of ``reference``: the median over some rounds, in turns.

    .. math:: \operatorname{median}_i \; t_i(\text{run}) / t_i(\text{reference})

    The two times of one round follow each other, so a slow round slows both. A turn takes some 20 ms.

    Args:
        run: the function.
        reference: the function that it is compared with.
        rounds: number of ratios.
        clock: by default the time on the wall, after all work of the accelerator is done; ``time.process_time`` does
            not count other processes.

    >>> time_ratio(lambda: sum(range(30_000)), lambda: sum(range(10_000)), rounds=3) > 1.5
    True
    """
    timers = _timers([run, reference], clock)
    repeats = max(1, int(_RATIO_SECONDS / max(timers[1].timeit(2).mean, 1e-9)))
    timers[0].timeit(2)
    ratios = []
    for order in islice(cycle([(0, 1), (1, 0)]), rounds):
        times = {index: timers[index].timeit(repeats).mean for index in order}
        ratios.append(times[0] / times[1])
    return median(ratios)


def _timers(runs: Sequence[Callable[[], Any]], clock: Clock) -> list[Timer]:
    return [Timer("run()", globals={"run": run}, timer=clock) for run in runs]
