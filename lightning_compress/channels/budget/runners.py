"""Runners: the runtimes in which latencies are measured, of models as they are or as they ship."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from torch import nn

from lightning_compress.adapters import merge
from lightning_compress.arguments import check_function
from lightning_compress.channels.budget.budgets import Budget
from lightning_compress.example_inputs import float_outputs, line_of
from lightning_compress.training.copies import detached_copy
from lightning_compress.training.method import Method, names_of

__all__ = ["AsShipped", "Runner", "as_shipped", "check_runner", "eager", "measured_in", "runner_name"]

Runner: TypeAlias = Callable[[nn.Module, Any], Callable[[], object]]
"""A model in evaluation mode and its input -> a function that runs the model once."""


def eager(module: nn.Module, example: Any) -> Callable[[], object]:
    """A function that runs ``module`` once in PyTorch, on the device of the model."""
    return partial(float_outputs, module, example)


def runner_name(runner: Runner) -> str:
    """The runtime in words.

    >>> runner_name(eager)
    'PyTorch'
    """
    return "PyTorch" if runner is eager else getattr(runner, "__name__", repr(runner))


def check_runner(runner: Runner, budget: Budget) -> None:
    """Refuse something else than code, and a runtime where no latency is measured.

    Raises:
        TypeError: ``runner`` is no function of a module and an example.
        ValueError: ``runner`` is given, and the budget is none of latency.
    """
    check_function("module", "example", runtime=runner)
    if runner is not eager and budget.name != "latency":
        raise ValueError(
            f"need latency= to measure it in a runtime, got runtime={runner!r} with {budget.name}={budget.amount}: "
            "leave runtime out, or ask for latency"
        )


@dataclass(frozen=True, repr=False)
class AsShipped:
    """Runs copies of models as other methods of the run ship them, with integer layers.

    PyTorch computes quantized layers in float, and slowly: there the copies are without quantization.

    Attributes:
        runner: runs the copies.
        methods: those of the run that ship other layers than are in the Trainer.
    """

    runner: Runner
    methods: tuple[Method, ...]

    def __call__(self, module: nn.Module, example: Any) -> Callable[[], object]:
        copied = merge(detached_copy(module))
        for method in self.methods:
            method.detach_(copied)
        if self._in_float:
            return self.runner(copied, example)
        try:
            for method in self.methods:
                method.ship_(copied, example)
            return self.runner(copied, example)
        except ValueError as error:
            raise ValueError(
                f"need a model that runs in the runtime of the budget as {self._names} quantizes it, got "
                f"{line_of(error)}, from {runner_name(self.runner)}: quantize for this runtime, by profile=, measure "
                "in another, or ask for macs="
            ) from error

    def __repr__(self) -> str:
        name = runner_name(self.runner)
        if self._in_float:
            return f"{name}, in float: it has no integer kernels for the layers of {self._names}"
        return f"{name}, quantized by {self._names}"

    @property
    def _in_float(self) -> bool:
        return getattr(self.runner, "runner", self.runner) is eager  # or batches of it

    @property
    def _names(self) -> str:
        return names_of(self.methods)


def measured_in(budget: Budget, runner: Runner, company: Sequence[Method] = ()) -> str:
    """Where a latency is measured, for the printed plan; empty for other budgets.

    Args:
        budget: of the callback.
        runner: the runtime.
        company: all methods of the run; layers that one of them will split are whole when the run starts.

    >>> measured_in(Budget("latency", 0.5), eager)
    ', latency in PyTorch'
    """
    if budget.name != "latency":
        return ""
    splitting = names_of([method for method in company if method.splits])
    whole = f", with the layers whole that {splitting} will split" if splitting else ""
    return f", latency in {runner_name(runner)}{whole}"


def as_shipped(runner: Runner, company: Sequence[Method]) -> Runner:
    """The runner of models as a run ships them; the runner itself if its methods leave the layers as they are.

    Args:
        runner: runs models.
        company: all methods of the run.
    """
    methods = tuple(method for method in company if method.lowers)
    return AsShipped(runner, methods) if methods else runner
