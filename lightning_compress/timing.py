"""Latency, measured in turns: A B B A, so that whatever slows the machine slows both candidates alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import quantiles
from typing import Any

import torch
from torch import nn
from torch.utils.benchmark import Timer

from lightning_compress.example_inputs import ExampleInput, call, device_of, evaluating, on_device

__all__ = ["Latency", "measure_latencies", "time_in_turns"]

_ROUNDS, _SECONDS = 20, 0.01  # each is measured so often, for so long: what slows the machine for a moment slows all


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


def measure_latencies(modules: Sequence[nn.Module], example_input: ExampleInput) -> list[Latency]:
    """Time forward passes of several modules in turns, A B B A, so that a busy machine slows all of them alike.

    Eager, in evaluation mode, without gradients, with one CPU thread; the modules are left as they were.

    Args:
        modules: one or more, on the device where they are to be measured.
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
    """Time functions in turns, A B B A.

    Args:
        runs: the functions.
        device: where they compute, ``"cpu"`` or ``"cuda"``.
    """
    times: list[list[float]] = [[] for _ in runs]
    timers = [Timer("run()", globals={"run": run}) for run in runs]
    turns = list(zip(timers, times, strict=True))
    for _ in range(_ROUNDS):
        for timer, seen in turns:
            seen.extend(timer.blocked_autorange(min_run_time=_SECONDS).times)
        turns.reverse()  # what slows the machine in a rhythm must not meet the same one each time
    cuts = [quantiles(seen, method="inclusive") for seen in times]
    return [Latency(median, lower, upper, device) for lower, median, upper in cuts]
