"""Cuts: the wish for fewer multiply-accumulates or a lower latency, which removed channels make true."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from torch import nn

from lightning_compress.arguments import check_count, check_function
from lightning_compress.channels import ChannelPruningCallback
from lightning_compress.channels.budget.runners import Runner, eager, runner_name
from lightning_compress.example_inputs import cycled_samples
from lightning_compress.schedules import Cubic, Linear, Schedule

__all__ = ["Batched", "Cut", "Phase", "new_cut"]

_CUT, _REST = Cubic(0.0, 0.5), Linear(0.5, 1.0)  # parts of a schedule: channels go, then the file is compressed
_CHOICES = 10  # most optimizer steps between two choices of channels


@dataclass(frozen=True, repr=False)
class Phase:
    """A part of another schedule: ``s(t) = part(whole(t))``.

    >>> Phase(Linear(0.5, 1.0), Linear(0.0, 1.0))(0.75)
    0.5
    """

    part: Schedule
    whole: Schedule

    def __call__(self, progress: float) -> float:
        return self.part(self.whole(progress))

    def __repr__(self) -> str:
        return f"{self.part!r} of {self.whole!r}"


@dataclass(frozen=True, repr=False)
class Batched:
    """Runs models on batches of one size, whatever the size of the example; see :data:`~.latencies.Runner`."""

    runner: Runner
    batch_size: int

    def __call__(self, module: nn.Module, example: Any) -> Callable[[], object]:
        return self.runner(module, cycled_samples(example, self.batch_size))

    def __repr__(self) -> str:
        return f"{runner_name(self.runner)} with batches of {self.batch_size}"


class Cut:
    """The wish for a fraction of the MACs or of the latency, and the callback that removes channels for it.

    Args:
        callback: the callback, whose budget is the wish.
        rest: strength of the whole -> that of the compression that comes after the removal.
    """

    def __init__(self, callback: ChannelPruningCallback, rest: Schedule) -> None:
        self.callback = callback
        self.rest = rest

    def describe(self) -> str:
        """The wish in words, for the printed plan."""
        return f"{self.callback.budget}, by whole channels"


def new_cut(arguments: Mapping[str, Any], *, first: bool) -> Cut | None:
    """The wish for the speed, of the arguments of a budget; None if there is none.

    Args:
        arguments: name -> value of all arguments.
        first: whether channels are removed in the first part of the schedule, before the file is compressed.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: an argument is of another kind.
    """
    asked = SimpleNamespace(**arguments)
    check_function("module", "example", runtime=asked.runtime)
    check_count(batch_size=asked.batch_size, round_to=asked.round_to)
    if asked.macs is None and asked.latency is None:
        return None
    speed = {"macs": asked.macs} if asked.latency is None else {"latency": asked.latency}
    runtime = eager if asked.latency is None else Batched(asked.runtime, asked.batch_size)
    callback = ChannelPruningCallback(
        **speed,
        runtime=runtime,
        round_to=asked.round_to,
        schedule=Phase(_CUT, asked.schedule) if first else asked.schedule,
        every_n_steps=min(_CHOICES, asked.every_n_steps),
        include=asked.include,
        exclude=asked.exclude,
    )
    callback.asker = "CompressionBudget"
    return Cut(callback, _REST if first else Linear(0.0, 1.0))
