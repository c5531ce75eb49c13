"""Outcomes: the part of a cost that is left when ``fit`` has ended, in numbers and in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_compress.channels.budget.budgets import Budget
from lightning_compress.channels.budget.latencies import latency_left
from lightning_compress.channels.budget.runners import Runner, runner_name
from lightning_compress.example_inputs import ExampleInput, line_of

__all__ = ["Outcome", "timed_outcome"]


@dataclass(frozen=True)
class Outcome:
    """How much of a cost is left, beside the budget that was asked for.

    Attributes:
        budget: the budget.
        asker: class name of the callback with the budget among its arguments.
        reached: the fraction that is left, counted or measured; None if there is none.
        runner: the runtime that measured it; None if it was counted.
        reason: the reason why nothing was measured.
    """

    budget: Budget
    asker: str
    reached: float | None = None
    runner: Runner | None = None
    reason: str = ""

    def report(self) -> dict[str, object]:
        """Entries of a report after ``fit``, by name."""
        told = {self.budget.name: self.reached, "missed": self.missed}
        return {name: value for name, value in told.items() if value not in (None, "")}

    @property
    def result(self) -> str:
        """The fraction that is left, as text; empty if nothing is measured for such a budget."""
        if self.reached is not None:
            return (
                f"{self.asker}: {self.reached:.3g} of the {self.budget.cost} left, asked for {self.budget.amount:.3g}"
            )
        return f"{self.asker}: the {self.budget.cost} was not measured again: {self.reason}" if self.reason else ""

    @property
    def missed(self) -> str:
        """By how much the budget was missed, and the way out, as text; empty if it was met."""
        asked = self.budget.amount
        if self.reached is None or self.reached <= asked:
            return ""
        measured = "" if self.runner is None else f", measured in {runner_name(self.runner)}"
        return (
            f"{self.asker} missed {self.budget.name}={asked:.3g} by {self.reached - asked:.2g}: {self.reached:.3g} of "
            f"the {self.budget.cost} is left{measured}; ask for less than you need, or for macs="
        )


def timed_outcome(
    budget: Budget, asker: str, module: nn.Module, example: ExampleInput | None, batch: Any, runner: Runner
) -> Outcome:
    """Measure the latency that is left, beside a budget of latency; no run is lost for a figure.

    Args:
        budget: the budget.
        asker: class name of the callback with the budget.
        module: the narrowed model; it is put into evaluation mode.
        example: its input; None to find it in the batch.
        batch: of the training data, on the device of the module; None if there is none.
        runner: runs the narrowed and the dense model.
    """
    if example is None and batch is None:
        reason = "there is no example of the input, so set module.example_input_array"
        return Outcome(budget, asker, runner=runner, reason=reason)
    try:
        return Outcome(budget, asker, latency_left(module, example, batch, runner), runner)
    except Exception as error:  # a runtime that does not take the trained model
        return Outcome(budget, asker, runner=runner, reason=line_of(error))
