"""Selection: the units to remove, under one budget for the whole model.

Units of a group are removed in blocks, least important first, so that every layer keeps a multiple of ``round_to``
channels: runtimes compute odd numbers of channels more slowly. Among the next blocks of all groups, the block is
removed that loses least importance per MAC (or parameter) saved, until the budget is met. The last block of a group can
only be removed if the group has a residual branch, and all layers of the branch are removed with it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from lightning_compress.channels.budget.costs import total_cost
from lightning_compress.channels.groups import Group

__all__ = ["choose_evenly", "choose_units", "largest_kept_fraction", "lowest_cost"]

_Sizes = dict[str, list[int]]


def choose_units(
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    sizes: Mapping[str, Sequence[int]],
    prices: Mapping[str, float],
    limit: float,
    round_to: int = 1,
) -> dict[str, Tensor]:
    """Choose units to remove until the model costs no more than ``limit``, or nothing is left to remove.

    The importance of a block is divided by the importance that is left in its group, so that no group collapses before
    the others.

    Args:
        groups: the groups.
        scores: group name -> ``(units,)`` importance, not negative.
        sizes: parameter name -> shape.
        prices: parameter name -> price of one element.
        limit: the budget, in the unit of the prices.
        round_to: every layer keeps a multiple of this number of channels; at least so many stay, or none.

    Returns:
        group name -> ``(units,)`` bool, True where a unit is removed.

    >>> from lightning_compress.channels.groups import Slice
    >>> part = Slice("fc1.weight", 0, torch.arange(4)[:, None], "out")
    >>> choose_units([Group("fc1", (part,))], {"fc1": torch.tensor([3.0, 1.0, 4.0, 2.0])}, {"fc1.weight": (4, 8)},
    ...              {"fc1.weight": 1.0}, limit=16.0)
    {'fc1': tensor([False,  True, False,  True])}
    """
    now: _Sizes = {name: list(size) for name, size in sizes.items()}
    queues = {group.name: _Queue(group, scores[group.name].cpu(), round_to, sizes) for group in groups}
    groups_of: dict[str, set[str]] = {}  # parameter name -> names of the groups that have entries in it
    for queue in queues.values():
        for name in queue.parameters:
            groups_of.setdefault(name, set()).add(queue.group.name)
    spent = total_cost(now, prices)
    offers: dict[str, tuple[float, float]] = {}  # group name -> importance and cost of its next block
    while spent > limit:
        for name, queue in queues.items():
            if name not in offers and queue.block:
                offers[name] = queue.loss, queue.saving(now, prices)
        if not offers:
            break
        # If one block alone meets the budget, its saving beyond the limit is worth nothing.
        last = {name: loss for name, (loss, saving) in offers.items() if spent - saving <= limit}
        losses = last or {name: loss / max(saving, 1e-30) for name, (loss, saving) in offers.items()}
        queue = queues[min(losses, key=lambda name: losses[name])]
        spent -= offers[queue.group.name][1]
        queue.shrink_(now)
        for stale in set().union(*(groups_of[name] for name in queue.parameters)):
            offers.pop(stale, None)
    return {name: queue.removed() for name, queue in queues.items()}


def choose_evenly(
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    dense: Mapping[str, float],
    kept: float,
    round_to: int = 1,
) -> dict[str, Tensor]:
    """Choose the least important units of every group, so that each group keeps the same fraction of its units.

    Args:
        groups: the groups.
        scores: group name -> ``(units,)`` importance.
        dense: group name -> number of units that the group had before any was removed.
        kept: fraction of these to keep.
        round_to: every layer keeps the nearest multiple of this number of channels, at least this number.

    Returns:
        group name -> ``(units,)`` bool, True where a unit is removed.

    >>> from lightning_compress.channels.groups import Slice
    >>> part = Slice("fc1.weight", 0, torch.arange(4)[:, None], "out")
    >>> choose_evenly([Group("fc1", (part,))], {"fc1": torch.tensor([3.0, 1.0, 4.0, 2.0])}, {"fc1": 4}, kept=0.75)
    {'fc1': tensor([False,  True, False, False])}
    """
    removed = {}
    for group in groups:
        queue = _Queue(group, scores[group.name].cpu(), round_to)
        queue.keep_(dense[group.name] * kept)
        removed[group.name] = queue.removed()
    return removed


def largest_kept_fraction(groups: Sequence[Group], dense: Mapping[str, float], round_to: int) -> float:
    """The largest fraction to keep with which :func:`choose_evenly` removes any unit; 0 if it can remove none.

    Args:
        groups: the groups.
        dense: group name -> number of units that the group had before any was removed.
        round_to: every layer keeps a multiple of this number of channels.
    """
    queues = [_Queue(group, torch.ones(group.units), round_to) for group in groups]
    return max(((q.group.units - q.block / 2) / dense[q.group.name] for q in queues if q.block), default=0.0)


def lowest_cost(
    groups: Sequence[Group], sizes: Mapping[str, Sequence[int]], prices: Mapping[str, float], round_to: int
) -> float:
    """The cost of the model after every block that can be removed is removed."""
    now = {name: list(size) for name, size in sizes.items()}
    for group in groups:
        queue = _Queue(group, torch.ones(group.units), round_to, sizes)
        while queue.block:
            queue.shrink_(now)
    return total_cost(now, prices)


class _Queue:
    """The units of one group in the order of their removal, and the number that is removed already.

    Args:
        group: the group.
        scores: ``(units,)`` importance.
        round_to: the layer keeps a multiple of this number of channels.
        names: names of all parameters of the model.
    """

    def __init__(self, group: Group, scores: Tensor, round_to: int, names: Collection[str] = ()) -> None:
        self.group = group
        self.parameters = group.parameters(names)
        self._branch_parameters = group.branch_parameters(names)
        self._order = scores.argsort(stable=True)
        self._cumulated = scores[self._order].double().cumsum(0).tolist()
        self._step = math.lcm(round_to, group.width) // group.width
        self._removed = 0

    @property
    def block(self) -> int:
        """Number of units in the next block; 0 if no more may be removed."""
        left = self.group.units - self._removed
        return 0 if left <= self._step and not self.group.branch else min(left, left % self._step or self._step)

    @property
    def loss(self) -> float:
        """Importance of the next block, relative to the importance that is left."""
        everything, before = self._cumulated[-1], self._cumulated[self._removed - 1] if self._removed else 0.0
        after = self._cumulated[self._removed + self.block - 1]
        return float((after - before) * everything / max(everything - before, 1e-30))

    def saving(self, sizes: Mapping[str, Sequence[int]], prices: Mapping[str, float]) -> float:
        """Cost that the removal of the next block saves."""
        touched = {name: list(sizes[name]) for name in self.parameters}
        own_prices = {name: prices[name] for name in touched if name in prices}
        before = total_cost(touched, own_prices)
        self._narrow_(touched)
        return before - total_cost(touched, own_prices)

    def shrink_(self, sizes: _Sizes) -> None:
        """Remove the next block."""
        self._narrow_(sizes)
        self._removed += self.block

    def keep_(self, units: float) -> None:
        """Remove blocks until as near to ``units`` as possible are left; of two equally near numbers, the smaller."""
        while self.block and 2 * (self.group.units - self._removed - units) >= self.block:
            self._removed += self.block

    def removed(self) -> Tensor:
        """``(units,)`` bool, True where a unit is removed."""
        removed = torch.zeros(self.group.units, dtype=torch.bool)
        removed[self._order[: self._removed]] = True
        return removed

    def _narrow_(self, sizes: _Sizes) -> None:
        for part in self.group.slices:
            if part.name in sizes:
                left = sizes[part.name][part.dim] - self.block * part.index.shape[1]
                sizes[part.name][part.dim] = max(left, 0)  # the removal of a branch may have emptied it already
        if self._removed + self.block == self.group.units:
            for name in self._branch_parameters.intersection(sizes):
                sizes[name] = [0] * len(sizes[name])
