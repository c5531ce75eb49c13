"""Thresholds: the exact k-th smallest of many tensors, without bringing them together.

The scores are a stream that can be read again, one tensor at a time; nothing of the size of all of them is ever
allocated. A random sample brackets the threshold; one more pass counts what lies below the bracket and collects what
lies inside, about one score in a hundred, which is a stream to select from in turn. Where scores are sharded over
processes, counts are added and samples gathered, so that every process finds the same threshold.

Paper: Floyd and Rivest, "Expected time bounds for selection", Communications of the ACM 18 (1975).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from lightning_compress.processes import concatenate, each

__all__ = ["Cut", "Scores", "find_cut", "spare"]

Scores: TypeAlias = Callable[[], Iterable[Tensor]]
"""A stream of float32 scores: each call starts it anew."""

_FEW = 1 << 19  # so many scores are selected from directly
_SHARE = 1 / 1024  # of the scores that are sampled
_ROOM = 1 << 20  # small pieces that lie together


@dataclass(frozen=True)
class Cut:
    """Where to cut: scores below ``value`` fall, and the first ``ties`` of those equal to it.

    Attributes:
        value: the threshold.
        ties: how many of the scores equal to ``value`` fall, in the order of the stream.
        equal: how many scores equal to ``value`` there are.
    """

    value: float
    ties: int
    equal: int


def find_cut(scores: Scores, share: float, group: dist.ProcessGroup | None = None) -> Cut:
    """Find the cut under which the given share of the scores falls, the smallest ones, to the nearest one.

    Args:
        scores: stream of float32 tensors of any shapes; with ``group``, this process's shards.
        share: how many of all scores (over all processes) fall, in [0, 1].
        group: the processes that the scores are sharded over; None if every process has them all.

    Returns:
        the cut of this process's scores. Ties fall in the order of the processes' ranks, then of the stream.

    Raises:
        ValueError: ``share`` is out of range, or a score is NaN.

    >>> find_cut(lambda: [torch.tensor([3.0, 1.0]), torch.tensor([2.0, 2.0])], 0.5)
    Cut(value=2.0, ties=1, equal=2)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"need 0 <= share <= 1, got share={share}")
    total, sample = _survey(scores, group)
    count = round(share * total)
    if count == 0:
        return Cut(-math.inf, 0, 0)
    value, smaller, equal = _select(scores, count, total, sample, group)
    rank = 0 if group is None else dist.get_rank(group)
    before = sum(each(equal, group)[:rank])
    return Cut(value, min(max(count - smaller - before, 0), equal), equal)


def spare(scores: Tensor, cut: Cut, passed: int = 0) -> tuple[Tensor, int]:
    """Mark the scores that the cut spares.

    Args:
        scores: one tensor of the stream.
        cut: the cut of the whole stream.
        passed: how many scores equal to ``cut.value`` came before in the stream.

    Returns:
        bool tensor of the shape of ``scores``, True where spared; and ``passed`` for the next tensor.

    >>> spare(torch.tensor([2.0, 1.0, 2.0]), Cut(2.0, ties=1, equal=2))
    (tensor([False, False,  True]), 2)
    """
    spared = (scores > cut.value).contiguous()
    if cut.ties == cut.equal > 0:
        return spared, passed
    tied = (scores == cut.value).flatten().nonzero().squeeze(1)
    spared.view(-1)[tied[max(0, cut.ties - passed) :]] = True
    return spared, passed + len(tied)


def _select(
    scores: Scores, k: int, total: int, sample: Tensor, group: dist.ProcessGroup | None
) -> tuple[float, int, int]:
    """The k-th smallest score; how many of all are smaller; how many of this process's are equal."""
    if total <= _FEW:
        mine = torch.cat([tensor.flatten() for tensor in scores()]).cpu()
        # NumPy selects ten times faster than Tensor.kthvalue.
        value = float(np.partition(concatenate(mine, group).numpy(), k - 1)[k - 1])
        fewer, equal = (int(np.count_nonzero(found)) for found in (mine.numpy() < value, mine.numpy() == value))
        return value, _sum(fewer, group), equal
    low, high = _bracket(sample, k / total)
    below, inner = _between(scores, low, high)
    below, inside = _sum(below, group), _sum(sum(map(len, inner)), group)
    if below < k <= below + inside:
        value, smaller, equal = _select(lambda: inner, k - below, *_survey(lambda: inner, group), group)
        return value, below + smaller, equal
    # A crowd of equal scores at an end of the bracket, zeros perhaps, or else a sample that misled.
    end = low if k <= below else high
    fewer, equal = _around(scores, end)
    smaller, upto = _sum(fewer, group), _sum(fewer + equal, group)
    if smaller < k <= upto:
        return end, smaller, equal

    def rest() -> Iterator[Tensor]:
        return (tensor[tensor < end if k <= smaller else tensor > end] for tensor in scores())

    passed = 0 if k <= smaller else upto
    value, others, equal = _select(rest, k - passed, *_survey(rest, group), group)
    return value, passed + others, equal


def _survey(scores: Scores, group: dist.ProcessGroup | None) -> tuple[int, Tensor]:
    """Number of all scores, and a random sample of them, sorted."""
    generator = torch.Generator().manual_seed(0)  # the same sample in every run
    total, sample = 0, _Pieces()
    for tensor in scores():
        flat = tensor.flatten()
        if len(flat) and flat.amax().isnan():
            raise ValueError("need scores that are numbers, got NaN: a weight or gradient is not finite")
        drawn = torch.randint(max(1, len(flat)), (math.ceil(len(flat) * _SHARE),), generator=generator)
        sample.add(flat[drawn.to(flat.device)])
        total += len(flat)
        del tensor, flat  # before the stream makes the next tensor
    return _sum(total, group), concatenate(torch.cat(sample.parts), group).sort().values


def _bracket(sample: Tensor, quantile: float) -> tuple[float, float]:
    """Two values of a sorted sample between which the quantile of what it is drawn from lies almost certainly."""
    middle, spread = quantile * len(sample), 5 * math.sqrt(quantile * (1 - quantile) * len(sample)) + 1
    first, last = max(0, int(middle - spread)), min(len(sample) - 1, math.ceil(middle + spread))
    return float(sample[first]), float(sample[last])


def _between(scores: Scores, low: float, high: float) -> tuple[int, list[Tensor]]:
    """How many of this process's scores are ``<= low``, and those strictly between ``low`` and ``high``."""
    below, inner = 0, _Pieces()
    for tensor in scores():
        upto = tensor <= low
        below += int(torch.count_nonzero(upto))
        found = tensor[(tensor < high).logical_and_(upto.logical_not_())]
        inner.add(found)
        del tensor, upto, found  # before the stream makes the next tensor
    return below, inner.parts


class _Pieces:
    """Small tensors out of large ones, side by side: spread over the heap they would block what the large ones free."""

    def __init__(self) -> None:
        self.parts: list[Tensor] = []
        self._room = torch.empty(0)

    def add(self, part: Tensor) -> None:
        if len(self._room) < len(part) or self._room.device != part.device:
            self._room = part.new_empty(max(len(part), _ROOM))
        self.parts.append(self._room[: len(part)].copy_(part))
        self._room = self._room[len(part) :]


def _around(scores: Scores, value: float) -> tuple[int, int]:
    """How many of this process's scores are smaller than ``value``, and how many equal."""
    smaller = upto = 0
    for tensor in scores():
        smaller += int(torch.count_nonzero(tensor < value))
        upto += int(torch.count_nonzero(tensor <= value))
    return smaller, upto - smaller


def _sum(number: int, group: dist.ProcessGroup | None) -> int:
    return sum(each(number, group))
