"""Latencies: how long a model takes for one batch, as a share of how long another takes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.benchmark import Timer

from lightning_compress.channels.budget.budgets import Costs, largest_share
from lightning_compress.channels.budget.selection import choose, smallest
from lightning_compress.channels.cutting.surgery import cut_
from lightning_compress.channels.groups import Group
from lightning_compress.example_inputs import float_outputs
from lightning_compress.processes import from_rank_zero

__all__ = ["macs_in_time", "relative_latency"]


def macs_in_time(
    module: nn.Module,
    reference: nn.Module,
    example: Any,
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    costs: Costs,
    limit: float,
    round_to: int,
) -> float:
    """The largest share of the dense model's MACs with which ``module`` takes no longer than ``limit`` allows.

    Copies of different widths are made and timed; which channels they lose decides little.

    Args:
        module: the model; it is left as it is.
        reference: the dense model.
        example: input of both, as :func:`~lightning_compress.example_inputs.call` takes it.
        groups: what can be removed from ``module``.
        scores: group name -> ``(units,)`` importance, not negative.
        costs: MACs of ``module`` and of the dense model.
        limit: share of the latency of ``reference``, in (0, 1).
        round_to: channels of each layer are kept in multiples of this number.

    Raises:
        ValueError: not even the narrowest copy is fast enough.
    """

    def latency(share: float) -> float:
        removed = choose(groups, scores, costs.sizes, costs.prices["macs"], share * costs.total("macs"), round_to)
        trial = copy.deepcopy(module)
        cut_(trial, groups, removed)
        return relative_latency(trial, reference, example)

    now = costs.share("macs")
    if latency(now) <= limit:
        return now
    least = smallest(groups, costs.sizes, costs.prices["macs"], round_to) / costs.total("macs")
    fastest = latency(least)
    if fastest > limit:
        raise ValueError(
            f"need latency >= {fastest:.3f} for this model with round_to={round_to}, got latency={limit}: measured "
            f"with the {least:.3g} of its MACs that have to stay; raise latency to remove less, or lower round_to"
        )
    return largest_share(latency, limit, least, now)


@torch.no_grad()
def relative_latency(module: nn.Module, reference: nn.Module, example: Any, rounds: int = 9) -> float:
    """Latency of ``module`` over that of ``reference``, in evaluation mode, where and how this process runs them.

    The median of the ratios of some rounds; in each the models take turns, so that what slows the machine slows both.
    In a distributed run all processes get what the first one measured.

    Args:
        module: the model.
        reference: what it is compared with.
        example: input of both, as :func:`~lightning_compress.example_inputs.call` takes it.
        rounds: how many ratios are taken.
    """
    runs = [partial(float_outputs, model.eval(), example) for model in (module, reference)]
    timers = [Timer("run()", globals={"run": run}) for run in runs]
    repeats = max(1, int(0.02 / max(timers[1].timeit(2).mean, 1e-9)))  # a round takes some 20 ms
    timers[0].timeit(2)
    share = median(timers[0].timeit(repeats).mean / timers[1].timeit(repeats).mean for _ in range(rounds))
    return from_rank_zero(share)
