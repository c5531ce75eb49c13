"""Costs of a forward pass: multiply-accumulates, counted, and latency, measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from statistics import quantiles
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from lightning_compress.deploy.modes import ExampleInput, call, device_of, evaluating, on_device

__all__ = ["Latency", "Macs", "count_macs", "measure_latencies", "time_in_turns"]

_ROUNDS, _SECONDS = 20, 0.01  # each is measured so often, for so long: what slows the machine for a moment slows all


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of matrix products, convolutions and attention; zeros count like other numbers.

    Attributes:
        total: of a forward pass.
        layers: the part of each module that is not its children's, by name.
        inputs: the shapes of the tensors that were given.
    """

    total: int
    layers: dict[str, int]
    inputs: str


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


def count_macs(module: nn.Module, example_input: ExampleInput) -> Macs:
    """Count the multiply-accumulates of a forward pass in evaluation mode; the module is left as it was.

    Args:
        module: the module, not sharded.
        example_input: a tensor, a tuple of positional or a mapping of keyword arguments of ``forward``.

    >>> count_macs(nn.Linear(30, 20), torch.zeros(1, 30)).total
    600
    """
    example = on_device(example_input, device_of(module))
    # Compiling here would fix the graph before other callbacks have attached their hooks.
    eager = torch.compiler.set_stance("force_eager")
    with evaluating(module), _unfused(), eager, FlopCounterMode(display=False) as counter:
        call(module, example)
    root = type(module).__name__
    macs = {
        name.removeprefix(root).removeprefix("."): sum(flops.values()) // 2
        for name, flops in counter.get_flop_counts().items()
        if name != "Global"
    }
    layers = {name: count for name in macs if (count := _own(name, macs)) > 0}
    return Macs(counter.get_total_flops() // 2, layers, _shapes(example))


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


@contextmanager
def _unfused() -> Iterator[None]:
    """Recurrent and transformer layers step by step: the counter does not look into their fused kernels."""
    backends: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    enabled = [backend.enabled for backend in backends]
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for backend in backends:
            backend.enabled = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for backend, was in zip(backends, enabled, strict=True):
            backend.enabled = was


def _own(name: str, macs: Mapping[str, int]) -> int:
    """What a module counted, less what the modules in it did; a list of modules is never called and counts nothing."""
    within = f"{name}." if name else ""
    inner = [other for other in macs if other != name and other.startswith(within)]
    outermost = [other for other in inner if not any(other.startswith(f"{around}.") for around in inner)]
    return macs[name] - sum(macs[other] for other in outermost)


def _shapes(example: Any) -> str:
    if isinstance(example, Tensor):
        return " x ".join(map(str, example.shape)) or "scalar"
    values = example.values() if isinstance(example, Mapping) else example if isinstance(example, tuple | list) else ()
    return ", ".join(shapes for value in values if (shapes := _shapes(value)))
