"""Floors: a common threshold that leaves a fraction of every weight, so that no layer is masked whole.

Weights of small scores lose nearly all of their units to a common threshold, and a layer without weights passes no
signal. A weight that would keep less than the floor therefore gets a threshold of its own, at the floor, and the others
mask that many units more: the number of masked units stays the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_compress.arguments import check_decay, check_effect
from lightning_compress.processes import concatenate
from lightning_compress.pruning.patterns import Pattern
from lightning_compress.pruning.thresholds import find_threshold, keep

__all__ = ["Units", "check_floor", "described", "floor_of", "kept_units"]

Units: TypeAlias = Callable[[str], Iterable[Tensor]]
"""Name of a weight -> float32 scores of its units, in tensors that are concatenated along their first dimension."""


def check_floor(owner: type[Any], floor: float | None, scope: str, pattern: Pattern) -> None:
    """Refuse a floor out of [0, 1), or one where every weight has the same sparsity.

    Args:
        owner: the class of the callback; its signature has the default.
        floor: least fraction of every weight that is kept; None for the default, which is allowed everywhere.
        scope: ``"layer"`` gives every weight a threshold of its own.
        pattern: one of a single sparsity has it in every weight.

    Raises:
        TypeError: ``floor`` is not a number.
        ValueError: it is out of its range, or it has no effect and is not the default.
    """
    if floor is None:
        return
    check_decay(floor=floor)
    if scope == "layer" or pattern.sparsity is not None:
        setting = "scope='layer'" if scope == "layer" else f"pattern={pattern}"
        check_effect(owner, "a common threshold", setting, floor=floor)


def floor_of(floor: float | None, sparsity: float, scope: str, pattern: Pattern) -> float:
    """The floor that an argument stands for: None for three tenths of the fraction of all weights that is kept.

    Where every weight has the same sparsity, the floor is 0.

    >>> from lightning_compress.pruning.patterns import Unstructured
    >>> round(floor_of(None, 0.9, "global", Unstructured()), 4)
    0.03
    """
    if scope == "layer" or pattern.sparsity is not None:
        return 0.0
    return 0.3 * (1 - sparsity) if floor is None else floor


def described(floor: float, sparsity: float) -> str:
    """The floor in words: the fraction that every weight keeps.

    >>> described(0.01, 0.9), described(0.01, 0.995)
    ('0.01 or more', '0.005: floor=0.01 is out of reach')
    """
    if sparsity > 1 - floor:
        return f"{1 - sparsity:.4g}: floor={floor:.4g} is out of reach"
    return f"{floor:.4g} or more"


def kept_units(
    units: Units, names: Sequence[str], fraction: float, floor: float, group: dist.ProcessGroup | None = None
) -> dict[str, Tensor]:
    """Mask ``round(fraction * N)`` of all ``N`` units, and at most ``(1 - floor) * n`` of the ``n`` units of a weight.

    The masked units are those of the smallest scores, except in weights that are at the floor. A ``fraction`` that no
    masks reach within the floor is masked in every weight instead.

    Args:
        units: gives the scores; it is called several times.
        names: the weights.
        fraction: fraction of all units that is masked, in [0, 1].
        floor: least fraction of the units of each weight that is kept, in [0, 1).
        group: the processes that the weights are sharded over; None if every process has all of them.

    Returns:
        name -> bool tensor of the shape of its units, True where a unit is kept.

    >>> scores = {"small": torch.tensor([0.1, 0.2]), "large": torch.tensor([1.0, 2.0, 3.0, 4.0])}
    >>> kept = kept_units(lambda name: [scores[name]], ["small", "large"], 0.5, floor=0.1)
    >>> kept["small"].tolist(), kept["large"].tolist()
    ([False, True], [False, False, True, True])
    """
    kept = _keep(units, names, fraction, group)
    sizes = _totals({name: kept[name].numel() for name in names}, group)
    left, free = round(fraction * sum(sizes.values())), list(names)
    most = {name: math.floor((1 - floor) * size) for name, size in sizes.items()}
    if sum(most.values()) < left:
        most = {name: math.ceil(fraction * size) for name, size in sizes.items()}
    while starved := _above(most, sizes, {name: kept[name] for name in free}, group):
        for name in starved:
            kept |= _keep(units, [name], most[name] / sizes[name], group)
        left -= sum(most[name] for name in starved)
        free = [name for name in free if name not in starved]
        kept |= _keep(units, free, left / max(1, sum(sizes[name] for name in free)), group)
    return kept


def _keep(units: Units, names: Sequence[str], fraction: float, group: dist.ProcessGroup | None) -> dict[str, Tensor]:
    threshold = find_threshold(lambda: (scores for name in names for scores in units(name)), fraction, group)
    kept = {}
    for name in names:
        parts = []
        for scores in units(name):
            part, threshold = keep(scores, threshold)
            parts.append(part)
        kept[name] = torch.cat(parts)
    return kept


def _above(
    most: Mapping[str, int], sizes: Mapping[str, int], kept: Mapping[str, Tensor], group: dist.ProcessGroup | None
) -> list[str]:
    """Names of the weights that have more masked units than ``most``."""
    counts = _totals({name: int(units.count_nonzero()) for name, units in kept.items()}, group)
    return [name for name, count in counts.items() if sizes[name] - count > most[name]]


def _totals(numbers: Mapping[str, int], group: dist.ProcessGroup | None) -> dict[str, int]:
    """Name -> sum of the numbers of all processes."""
    processes = concatenate(torch.tensor([list(numbers.values())]), group)
    return dict(zip(numbers, processes.sum(0).tolist(), strict=True))
