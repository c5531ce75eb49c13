"""Latencies: the MACs with which a model meets a budget of measured latency."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from lightning_compress.arguments import shown
from lightning_compress.channels.budget.budgets import Budget
from lightning_compress.channels.budget.costs import Costs
from lightning_compress.channels.budget.model_budgets import ModelBudget
from lightning_compress.channels.budget.runners import Runner, eager
from lightning_compress.channels.budget.selection import lowest_cost
from lightning_compress.channels.groups import Group
from lightning_compress.channels.removal.shapes import dense_copy
from lightning_compress.example_inputs import ExampleInput, device_of, on_device, small_example_in
from lightning_compress.processes import from_rank_zero
from lightning_compress.timing import time_ratio

__all__ = [
    "fraction_to_keep",
    "largest_fraction",
    "latency_left",
    "macs_within_latency",
    "relative_latency",
]

_AIMED = 0.97  # of a limit: two measurements of one model differ by some percent


def fraction_to_keep(
    budget: Budget,
    runner: Runner,
    module: nn.Module,
    example: Any,
    groups: Sequence[Group],
    costs: Costs,
    round_to: int,
) -> float:
    """The fraction that a budget asks for; of the MACs if it is one of latency, by :func:`macs_within_latency`."""
    if budget.name != "latency":
        return budget.amount
    return macs_within_latency(module, example, groups, costs, budget.amount, round_to, runner)


def macs_within_latency(
    module: nn.Module,
    example: Any,
    groups: Sequence[Group],
    costs: Costs,
    limit: float,
    round_to: int,
    runner: Runner = eager,
) -> float:
    """The largest fraction of the dense model's MACs with which ``module`` meets a limit of latency.

    Copies of different widths are made, without the channels of least magnitude, and timed against the dense model. In
    a distributed run all processes use the times of the first.

    Args:
        module: the model; it is left as it is.
        example: its input; see :func:`~lightning_compress.example_inputs.call`.
        groups: groups of ``module`` whose units may be removed.
        costs: MACs of ``module`` and of the dense model.
        limit: fraction of the latency of the dense model, in (0, 1).
        round_to: every layer keeps a multiple of this number of channels.
        runner: runs the copies.

    Raises:
        ValueError: even the narrowest copy is too slow.
    """
    prices, dense = costs.prices["macs"], costs.total("macs")
    reference = dense_copy(module)

    def latency(fraction: float) -> float:
        budget = ModelBudget(Budget("macs", fraction), fraction, tuple(groups), costs, round_to)
        return relative_latency(budget.narrowed_copy(module), reference, example, runner)

    now = costs.fraction("macs")
    if latency(now) <= limit:
        return now
    least = lowest_cost(groups, costs.sizes, prices, round_to) / dense if dense else 1.0
    fastest = latency(least)
    if fastest > limit:
        measured = f"measured with {least:.3g} of its MACs, the fewest possible"
        if not groups or math.ceil(1000 * fastest) >= 1000:
            raise ValueError(
                f"need a model that fewer channels make faster, got {fastest:.3f} of its latency for latency={limit}, "
                f"{measured}: lower round_to={round_to}, measure larger inputs, or compress its weights, by QATCallback"
            )
        raise ValueError(
            f"need latency >= {math.ceil(1000 * fastest) / 1000:.3f} for this model with round_to={round_to}, got "
            f"latency={limit}: {measured}; raise latency to remove less, or lower round_to"
        )
    return largest_fraction(latency, _AIMED * limit, least, now)


@torch.no_grad()
def relative_latency(module: nn.Module, reference: nn.Module, example: Any, runner: Runner = eager) -> float:
    """Latency of ``module`` divided by that of ``reference``, in evaluation mode.

    In a distributed run all processes return the ratio that the first one measured.

    Args:
        module: the model.
        reference: the model that it is compared with.
        example: input of both; see :func:`~lightning_compress.example_inputs.call`.
        runner: runs both.

    Raises:
        TypeError: ``runner`` returns no function.
    """
    run, run_reference = (runner(model.eval(), example) for model in (module, reference))
    if not callable(run):
        raise TypeError(f"need runtime(module, example) to return a function, got {shown(run)} from {shown(runner)}")
    return from_rank_zero(time_ratio(run, run_reference))


def latency_left(module: nn.Module, example: ExampleInput | None, batch: Any, runner: Runner = eager) -> float:
    """The fraction of the latency that is left, of that before any channel was removed.

    Args:
        module: the model; it is put into evaluation mode.
        example: its input; None to find it in the batch.
        batch: of the training data, on the device of the module.
        runner: runs both.
    """
    found = small_example_in(batch, module) if example is None else on_device(example, device_of(module))
    return relative_latency(module, dense_copy(module), found, runner)


def largest_fraction(
    cost: Callable[[float], float], limit: float, least: float, most: float = 1.0, probes: int = 6
) -> float:
    """The largest fraction of a model that costs no more than ``limit``, to within ``(most - least) / 2 ** probes``.

    Args:
        cost: fraction -> measured cost; it should grow with the fraction.
        limit: the highest allowed cost.
        least: the smallest possible fraction; the answer if no larger one is cheap enough.
        most: a fraction that costs too much.
        probes: number of calls of ``cost``.

    >>> largest_fraction(lambda fraction: fraction**2, limit=0.25, least=0.0)
    0.5
    """
    for _ in range(probes):
        middle = (least + most) / 2
        if cost(middle) <= limit:
            least = middle
        else:
            most = middle
    return least
