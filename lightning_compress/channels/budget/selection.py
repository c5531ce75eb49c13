"""Selection: which units go, under one budget for the whole model.

Units of a group go in blocks, least important first, so that what is left of a layer is a multiple of ``round_to``
channels: runtimes compute odd counts slower than even ones. Among the next blocks of all groups, the one goes whose
removal costs least importance per MAC (or parameter) saved, until the budget is met. The last block of a group goes
only where the group has a branch, and takes all layers of the branch along.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from lightning_compress.channels.groups import Group, total

__all__ = ["choose", "choose_of_each", "most_kept", "smallest"]

_Sizes = dict[str, list[int]]


def choose(
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    sizes: Mapping[str, Sequence[int]],
    prices: Mapping[str, float],
    limit: float,
    round_to: int = 1,
) -> dict[str, Tensor]:
    """Choose units to remove until the model costs no more than ``limit``, or nothing is left to remove.

    The importance that a block costs counts in relation to what is left of its group, so that no group collapses
    before the others.

    Args:
        groups: the groups.
        scores: group name -> ``(units,)`` importance, not negative.
        sizes: parameter name -> shape.
        prices: parameter name -> price of one element.
        limit: the budget, in the unit of the prices.
        round_to: channels of each layer are kept in multiples of this number; at least so many stay, or none.

    Returns:
        group name -> ``(units,)`` bool, True where a unit is removed.

    >>> from lightning_compress.channels.groups import Slice
    >>> part = Slice("fc1.weight", 0, torch.arange(4)[:, None], "out")
    >>> choose([Group("fc1", (part,))], {"fc1": torch.tensor([3.0, 1.0, 4.0, 2.0])}, {"fc1.weight": (4, 8)},
    ...        {"fc1.weight": 1.0}, limit=16.0)
    {'fc1': tensor([False,  True, False,  True])}
    """
    now: _Sizes = {name: list(size) for name, size in sizes.items()}
    queues = {group.name: _Queue(group, scores[group.name].cpu(), round_to, sizes) for group in groups}
    touching: dict[str, set[str]] = {}  # parameter -> groups that it belongs to
    for queue in queues.values():
        for name in queue.parameters:
            touching.setdefault(name, set()).add(queue.group.name)
    spent = total(now, prices)
    offers: dict[str, tuple[float, float]] = {}  # group -> importance that the next block costs, and what it saves
    while spent > limit:
        for name, queue in queues.items():
            if name not in offers and queue.block:
                offers[name] = queue.loss, queue.saving(now, prices)
        if not offers:
            break
        # The last block need not save more than is missing.
        last = {name: loss for name, (loss, saving) in offers.items() if spent - saving <= limit}
        costs = last or {name: loss / max(saving, 1e-30) for name, (loss, saving) in offers.items()}
        queue = queues[min(costs, key=lambda name: costs[name])]
        spent -= offers[queue.group.name][1]
        queue.shrink_(now)
        for stale in set().union(*(touching[name] for name in queue.parameters)):
            offers.pop(stale, None)
    return {name: queue.removed() for name, queue in queues.items()}


def choose_of_each(
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    dense: Mapping[str, float],
    kept: float,
    round_to: int = 1,
) -> dict[str, Tensor]:
    """Choose the least important units of every group, so that each keeps the same fraction of its units.

    Args:
        groups: the groups.
        scores: group name -> ``(units,)`` importance.
        dense: group name -> how many units the group had before any was cut.
        kept: fraction of these to keep.
        round_to: channels of each layer are kept in the multiple of this number that is nearest; at least so many stay.

    Returns:
        group name -> ``(units,)`` bool, True where a unit is removed.

    >>> from lightning_compress.channels.groups import Slice
    >>> part = Slice("fc1.weight", 0, torch.arange(4)[:, None], "out")
    >>> choose_of_each([Group("fc1", (part,))], {"fc1": torch.tensor([3.0, 1.0, 4.0, 2.0])}, {"fc1": 4}, kept=0.75)
    {'fc1': tensor([False,  True, False, False])}
    """
    removed = {}
    for group in groups:
        queue = _Queue(group, scores[group.name].cpu(), round_to)
        queue.keep_(dense[group.name] * kept)
        removed[group.name] = queue.removed()
    return removed


def most_kept(groups: Sequence[Group], dense: Mapping[str, float], round_to: int) -> float:
    """The largest fraction of units to keep with which any group loses a block; 0 if none can.

    Args:
        groups: the groups.
        dense: group name -> how many units the group had before any was removed.
        round_to: as for :func:`choose_of_each`.
    """
    queues = [_Queue(group, torch.ones(group.units), round_to) for group in groups]
    return max(((q.group.units - q.block / 2) / dense[q.group.name] for q in queues if q.block), default=0.0)


def smallest(
    groups: Sequence[Group], sizes: Mapping[str, Sequence[int]], prices: Mapping[str, float], round_to: int
) -> float:
    """The least that the model can cost with these groups."""
    now = {name: list(size) for name, size in sizes.items()}
    for group in groups:
        queue = _Queue(group, torch.ones(group.units), round_to, sizes)
        while queue.block:
            queue.shrink_(now)
    return total(now, prices)


class _Queue:
    """The units of one group in the order in which they go, and how many have gone."""

    def __init__(self, group: Group, scores: Tensor, round_to: int, names: Collection[str] = ()) -> None:
        self.group = group
        self.parameters = group.parameters(names)
        self._hollowed = group.hollowed(names)
        self._order = scores.argsort(stable=True)
        self._scores = scores[self._order].double().cumsum(0).tolist()
        self._step = math.lcm(round_to, group.width) // group.width
        self._gone = 0

    @property
    def block(self) -> int:
        """How many units go next; 0 if no more may go."""
        left = self.group.units - self._gone
        return 0 if left <= self._step and not self.group.branch else min(left, left % self._step or self._step)

    @property
    def loss(self) -> float:
        """Importance that goes with the next block, in relation to what is left."""
        everything, before = self._scores[-1], self._scores[self._gone - 1] if self._gone else 0.0
        after = self._scores[self._gone + self.block - 1]
        return float((after - before) * everything / max(everything - before, 1e-30))

    def saving(self, sizes: Mapping[str, Sequence[int]], prices: Mapping[str, float]) -> float:
        """What the removal of the next block saves."""
        touched = {name: list(sizes[name]) for name in self.parameters}
        mine = {name: prices[name] for name in touched if name in prices}
        before = total(touched, mine)
        self._narrow_(touched)
        return before - total(touched, mine)

    def shrink_(self, sizes: _Sizes) -> None:
        """Remove the next block."""
        self._narrow_(sizes)
        self._gone += self.block

    def keep_(self, units: float) -> None:
        """Remove blocks until what is left is as near to ``units`` as it gets; where two are, the smaller."""
        while self.block and 2 * (self.group.units - self._gone - units) >= self.block:
            self._gone += self.block

    def removed(self) -> Tensor:
        """``(units,)`` bool, True where a unit has gone."""
        gone = torch.zeros(self.group.units, dtype=torch.bool)
        gone[self._order[: self._gone]] = True
        return gone

    def _narrow_(self, sizes: _Sizes) -> None:
        for part in self.group.slices:
            if part.name in sizes:
                left = sizes[part.name][part.dim] - self.block * part.index.shape[1]
                sizes[part.name][part.dim] = max(left, 0)  # a branch may have taken it already
        if self._gone + self.block == self.group.units:
            for name in self._hollowed.intersection(sizes):
                sizes[name] = [0] * len(sizes[name])
