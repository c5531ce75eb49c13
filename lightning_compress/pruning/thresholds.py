"""Thresholds: the exact k-th smallest of many tensors, without bringing them together.

The scores are a stream that can be read again and again, one tensor at a time; nothing of the size of all of them is
ever allocated. A random sample brackets the threshold, one pass counts what lies below the bracket, the next collects
what lies inside (about 1 % of the scores) and selects there. Where scores are sharded over processes, counts are added
and samples gathered, so that every process finds the same threshold.

Paper: Floyd and Rivest, "Expected time bounds for selection", Communications of the ACM 18 (1975).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

__all__ = ["Cut", "Scores", "each", "find_cut", "spare"]

Scores: TypeAlias = Callable[[], Iterable[Tensor]]
"""A stream of float32 scores: each call starts it anew."""

_SAMPLE = 1 << 18


@dataclass(frozen=True)
class Cut:
    """Where to cut: scores below ``value`` fall, and the first ``ties`` of those equal to it.

    Attributes:
        value: the threshold.
        ties: how many of the scores equal to ``value`` fall, in the order of the stream.
    """

    value: float
    ties: int


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
    Cut(value=2.0, ties=1)
    """
    if not 0 <= share <= 1:
        raise ValueError(f"need 0 <= share <= 1, got share={share}")
    total = _total(scores, group)
    count = round(share * total)
    if count == 0:
        return Cut(-math.inf, 0)
    value = _kth_smallest(scores, count, total, group)
    smaller, equal = _count(scores, value, value)
    ties = count - sum(each(smaller, group))
    rank = 0 if group is None else dist.get_rank(group)
    before = sum(each(equal, group)[:rank])
    return Cut(value, min(max(ties - before, 0), equal))


def spare(scores: Tensor, cut: Cut, passed: int = 0) -> tuple[Tensor, int]:
    """Mark the scores that the cut spares.

    Args:
        scores: one tensor of the stream.
        cut: the cut of the whole stream.
        passed: how many scores equal to ``cut.value`` came before in the stream.

    Returns:
        bool tensor of the shape of ``scores``, True where spared; and ``passed`` for the next tensor.

    >>> spare(torch.tensor([2.0, 1.0, 2.0]), Cut(2.0, ties=1))
    (tensor([False, False,  True]), 2)
    """
    spared = (scores > cut.value).contiguous()
    tied = (scores == cut.value).flatten().nonzero().squeeze(1)
    spared.view(-1)[tied[max(0, cut.ties - passed) :]] = True
    return spared, passed + len(tied)


def _kth_smallest(scores: Scores, k: int, total: int, group: dist.ProcessGroup | None) -> float:
    generator = torch.Generator().manual_seed(0)  # the same sample in every process and every run
    low, high, below, inside = -math.inf, math.inf, 0, total
    few = max(_SAMPLE, total // 50)
    while inside > few:
        sample = _sample(scores, low, high, min(1.0, _SAMPLE / total), generator, group)
        if not len(sample):
            break
        a, b = _bracket(sample, (k - below) / inside)
        before, within = _count_all(scores, a, b, group)
        if before < k <= before + within:
            low, high, below, inside = a, b, before, within
        else:  # the sample misled: a second best bracket
            low, high = (low, a) if k <= before else (b, high)
            below, inside = _count_all(scores, low, high, group)
        if inside > few:  # a crowd of equal scores at an end, zeros perhaps
            for end in (low, high):
                smaller, equal = _count_all(scores, end, end, group)
                if smaller < k <= smaller + equal:
                    return end
    between = torch.cat([tensor[(tensor >= low) & (tensor <= high)] for tensor in scores()])
    return float(_gather(between, group).kthvalue(k - below).values)


def _sample(
    scores: Scores, low: float, high: float, share: float, generator: torch.Generator, group: dist.ProcessGroup | None
) -> Tensor:
    """A random share of the scores, sorted; only those strictly between ``low`` and ``high``."""
    parts = []
    for tensor in scores():
        flat = tensor.flatten()
        drawn = torch.randint(max(1, len(flat)), (math.ceil(len(flat) * share),), generator=generator)
        part = flat[drawn.to(flat.device)]
        parts.append(part[(part > low) & (part < high)])
    return _gather(torch.cat(parts), group).sort().values


def _bracket(sample: Tensor, quantile: float) -> tuple[float, float]:
    """Two values of a sorted sample between which the quantile of what it is drawn from lies almost certainly."""
    middle, spread = quantile * len(sample), 5 * math.sqrt(quantile * (1 - quantile) * len(sample)) + 1
    first, last = max(0, int(middle - spread)), min(len(sample) - 1, math.ceil(middle + spread))
    return float(sample[first]), float(sample[last])


def _total(scores: Scores, group: dist.ProcessGroup | None) -> int:
    total = 0
    for tensor in scores():
        total += tensor.numel()
        if tensor.isnan().any():
            raise ValueError("need scores that are numbers, got NaN: a weight or gradient is not finite")
    return sum(each(total, group))


def _count(scores: Scores, low: float, high: float) -> tuple[int, int]:
    """How many of this process's scores lie below ``low``, and how many in [low, high]."""
    below = upto = 0
    for tensor in scores():
        below += int(torch.count_nonzero(tensor < low))
        upto += int(torch.count_nonzero(tensor <= high))
    return below, upto - below


def _count_all(scores: Scores, low: float, high: float, group: dist.ProcessGroup | None) -> tuple[int, int]:
    below, inside = _count(scores, low, high)
    return sum(each(below, group)), sum(each(inside, group))


def each(number: int, group: dist.ProcessGroup | None) -> list[int]:
    """The number of every process, in the order of their ranks."""
    if group is None:
        return [number]
    numbers = [0] * dist.get_world_size(group)
    dist.all_gather_object(numbers, number, group=group)
    return numbers


def _gather(tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    if group is None:
        return tensor
    tensors = [tensor] * dist.get_world_size(group)
    dist.all_gather_object(tensors, tensor.cpu(), group=group)
    return torch.cat(tensors)
