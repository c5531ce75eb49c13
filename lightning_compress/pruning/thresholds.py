"""Thresholds: the exact k-th smallest of many scores, without concatenating the tensors that hold them.

The scores are a stream of tensors that can be read several times; only one of them is in memory at a time. A random
sample gives a bracket that contains the threshold almost certainly. A second pass counts the scores below the bracket
and collects those inside it, about one in a hundred, and the search continues among these. Where the scores are sharded
over processes, counts are added and samples concatenated, so every process finds the same threshold.

Paper: Floyd and Rivest, "Expected time bounds for selection", Communications of the ACM 18 (1975).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from lightning_compress.processes import concatenate, gather_numbers

__all__ = ["Scores", "Threshold", "find_threshold", "keep"]

Scores: TypeAlias = Callable[[], Iterable[Tensor]]
"""A stream of float32 tensors; each call starts it again."""

_FEW = 1 << 19  # up to this number of scores the search is direct
_SAMPLED = 1 / 1024  # fraction of the scores in the sample
_BUFFER = 1 << 20  # elements of a buffer that holds small tensors side by side


@dataclass(frozen=True)
class Threshold:
    """The scores below ``value`` are masked, and the first ``masked`` of the ``equal`` scores that are equal to it.

    Attributes:
        value: the threshold.
        masked: number of scores equal to ``value`` that are masked, in the order of the stream.
        equal: number of scores equal to ``value``.
    """

    value: float
    masked: int
    equal: int


def find_threshold(scores: Scores, fraction: float, group: dist.ProcessGroup | None = None) -> Threshold:
    """Find the threshold that masks the given fraction of the scores, the smallest ones: ``round(fraction * N)`` of N.

    Args:
        scores: stream of float32 tensors of any shapes; with ``group``, this process's shards.
        fraction: fraction of all scores, over all processes, that is masked, in [0, 1].
        group: the processes that the scores are sharded over; None if every process has all scores.

    Returns:
        the threshold for this process's scores. Equal scores are masked in the order of the processes, then of the
        stream.

    Raises:
        ValueError: ``fraction`` is out of range, or a score is NaN.

    >>> find_threshold(lambda: [torch.tensor([3.0, 1.0]), torch.tensor([2.0, 2.0])], 0.5)
    Threshold(value=2.0, masked=1, equal=2)
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"need 0 <= fraction <= 1, got fraction={fraction!r}")
    survey = _survey(scores, group)
    k = round(fraction * survey.total)
    if k == 0:
        return Threshold(-math.inf, 0, 0)
    found = _select(survey, k)
    process = 0 if group is None else dist.get_rank(group)
    equal_before = sum(gather_numbers(found.equal, group)[:process])
    masked = min(max(k - found.below - equal_before, 0), found.equal)
    return Threshold(found.value, masked, found.equal)


def keep(scores: Tensor, threshold: Threshold) -> tuple[Tensor, Threshold]:
    """Mark the scores that a threshold keeps.

    Args:
        scores: one tensor of the stream.
        threshold: the threshold of this tensor and of those that follow in the stream.

    Returns:
        bool tensor of the shape of the scores, True where a score is kept; the threshold of the tensors that follow.

    >>> keep(torch.tensor([2.0, 1.0, 2.0]), Threshold(2.0, masked=1, equal=3))
    (tensor([False, False,  True]), Threshold(value=2.0, masked=0, equal=1))
    """
    above = torch.gt if threshold.masked else torch.ge
    kept = above(scores, threshold.value).contiguous()
    if not 0 < threshold.masked < threshold.equal:
        return kept, threshold
    equal = (scores == threshold.value).flatten().nonzero().squeeze(1)
    kept.view(-1)[equal[threshold.masked :]] = True
    left = max(0, threshold.masked - len(equal))
    return kept, Threshold(threshold.value, left, threshold.equal - len(equal))


@dataclass(frozen=True)
class _Survey:
    """A stream with its number of scores and a sorted random sample of them, both over all processes."""

    scores: Scores
    group: dist.ProcessGroup | None
    total: int
    sample: Tensor


@dataclass(frozen=True)
class _Found:
    """The k-th smallest score.

    Attributes:
        value: the score.
        below: number of smaller scores, over all processes.
        equal: number of scores of this process that are equal to it.
    """

    value: float
    below: int
    equal: int


@dataclass(frozen=True)
class _Counts:
    """Numbers of scores below the low end of a bracket, equal to its low end, and strictly inside the bracket."""

    below: int
    equal: int
    inside: int

    def sum(self, group: dist.ProcessGroup | None) -> _Counts:
        """The counts of all processes, added."""
        return _Counts(*(sum(gather_numbers(count, group)) for count in (self.below, self.equal, self.inside)))


def _select(survey: _Survey, k: int) -> _Found:
    """Find the k-th smallest score, ``1 <= k <= total``."""
    scores, group = survey.scores, survey.group
    if survey.total <= _FEW:
        return _select_few(scores, k, group)
    low, high = _bracket(survey.sample, k / survey.total)
    mine, inside = _count(scores, low, high)
    counts = mine.sum(group)
    if k <= counts.below:  # the sample misled
        return _select(_survey(lambda: (tensor[tensor < low] for tensor in scores()), group), k)
    if k <= counts.below + counts.equal:
        return _Found(low, counts.below, mine.equal)
    passed = counts.below + counts.equal
    if k <= passed + counts.inside:
        found = _select(_survey(lambda: inside, group), k - passed)
    else:  # many scores are equal to the high end, or the sample misled
        passed += counts.inside
        above = _survey(lambda: (tensor[(tensor > low) & (tensor >= high)] for tensor in scores()), group)
        found = _select(above, k - passed)
    return replace(found, below=found.below + passed)


def _select_few(scores: Scores, k: int, group: dist.ProcessGroup | None) -> _Found:
    """Find the k-th smallest score in memory."""
    mine = torch.cat([tensor.flatten() for tensor in scores()]).cpu()
    # NumPy is ten times faster than Tensor.kthvalue here.
    value = float(np.partition(concatenate(mine, group).numpy(), k - 1)[k - 1])
    below, equal = (int(np.count_nonzero(where)) for where in (mine.numpy() < value, mine.numpy() == value))
    return _Found(value, sum(gather_numbers(below, group)), equal)


def _survey(scores: Scores, group: dist.ProcessGroup | None) -> _Survey:
    """Count the scores, refuse NaN, and draw a random sample."""
    generator = torch.Generator().manual_seed(0)  # the same sample in every run
    total, sample = 0, _Buffer()
    for tensor in scores():
        flat = tensor.flatten()
        if len(flat) and flat.amax().isnan():
            raise ValueError("need scores that are numbers, got NaN: a weight or gradient is not finite")
        drawn = torch.randint(max(1, len(flat)), (math.ceil(len(flat) * _SAMPLED),), generator=generator)
        sample.add(flat[drawn.to(flat.device)])
        total += len(flat)
        del tensor, flat  # before the stream makes the next tensor
    ordered = concatenate(torch.cat(sample.parts), group).sort().values
    return _Survey(scores, group, sum(gather_numbers(total, group)), ordered)


def _bracket(sample: Tensor, quantile: float) -> tuple[float, float]:
    """Two values of a sorted sample: the quantile of all scores lies between them almost certainly."""
    middle, spread = quantile * len(sample), 5 * math.sqrt(quantile * (1 - quantile) * len(sample)) + 1
    first, last = max(0, int(middle - spread)), min(len(sample) - 1, math.ceil(middle + spread))
    return float(sample[first]), float(sample[last])


def _count(scores: Scores, low: float, high: float) -> tuple[_Counts, list[Tensor]]:
    """Count this process's scores relative to a bracket, and collect those strictly inside it."""
    below, upto, inside = 0, 0, _Buffer()
    for tensor in scores():
        above = tensor > low
        upto += tensor.numel() - int(torch.count_nonzero(above))
        below += int(torch.count_nonzero(tensor < low))
        found = tensor[(tensor < high).logical_and_(above)]
        inside.add(found)
        del tensor, above, found  # before the stream makes the next tensor
    return _Counts(below, upto - below, sum(map(len, inside.parts))), inside.parts


class _Buffer:
    """Small tensors side by side in a few buffers.

    Small tensors that are scattered over the heap would keep the memory of the large ones from being reused.
    """

    def __init__(self) -> None:
        self.parts: list[Tensor] = []
        self._free = torch.empty(0)

    def add(self, part: Tensor) -> None:
        if len(self._free) < len(part) or self._free.device != part.device:
            self._free = part.new_empty(max(len(part), _BUFFER))
        self.parts.append(self._free[: len(part)].copy_(part))
        self._free = self._free[len(part) :]
