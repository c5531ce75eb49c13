"""Masks: integers that set the entries of a weight to zero.

All bits of a mask are set where the weight is kept. The bitwise and of weight and mask gives exact positive zeros,
whatever value is masked, in the time of a multiplication. The mask of a small weight is as wide as the weight. That of
a large one takes a byte for each entry, and is widened block by block.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from lightning_compress.blocks import block_elements, blocks
from lightning_compress.processes import concatenate, shard_group
from lightning_compress.pruning.patterns import Pattern
from lightning_compress.pruning.scores import runs

__all__ = ["apply_", "counts", "densities", "mask_of"]

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def mask_of(kept: Tensor, weight: Tensor) -> Tensor:
    """The mask for ``weight`` that keeps the entries where ``kept`` is True.

    Args:
        kept: bool tensor of the shape of the weight.
        weight: gives the width of the integers.

    >>> mask_of(torch.tensor([True, False]), torch.ones(2)).tolist()
    [-1, 0]
    """
    width = weight.element_size() if weight.numel() <= block_elements(weight.device) else 1
    return kept.to(_INTEGERS[width]).neg_()


def apply_(masks: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Mask the tensors in place; a tensor without a mask stays as it is.

    Args:
        masks: name -> mask.
        tensors: name -> tensor of the shape of the mask, of any width.

    >>> weight = torch.tensor([3.0, -5.0])
    >>> apply_({"w": torch.tensor([-1, 0], dtype=torch.int32)}, {"w": weight}); weight.tolist()
    [3.0, 0.0]
    """
    for name in masks.keys() & tensors.keys():
        tensor, mask = tensors[name], masks[name]
        words = tensor.view(_INTEGERS[tensor.element_size()])
        if words.dtype == mask.dtype:
            words.bitwise_and_(mask)
        else:
            for part, narrow in blocks(words, mask):
                part.bitwise_and_(narrow.to(part.dtype))


def densities(masks: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> dict[str, float]:
    """Fraction of the entries of each parameter that its mask keeps; a collective if parameters are sharded.

    Args:
        masks: name -> mask; of this process's shard if the parameter is sharded.
        parameters: name -> parameter.

    Returns:
        name -> fraction in [0, 1], of the whole parameter; 1 for a parameter without entries.

    >>> weight = torch.ones(4)
    >>> densities({"w": mask_of(torch.tensor([True, False, False, False]), weight)}, {"w": weight})
    {'w': 0.25}
    """
    groups: dict[dist.ProcessGroup | None, list[str]] = {}
    for name in masks:
        groups.setdefault(shard_group([parameters[name]]), []).append(name)
    kept: dict[str, int] = {}
    for group, names in groups.items():
        own = torch.stack([masks[name].count_nonzero() for name in names]).cpu()
        every = concatenate(own, group).view(-1, len(names)).sum(0)
        kept.update(zip(names, every.tolist(), strict=True))
    return {name: kept[name] / parameters[name].numel() if parameters[name].numel() else 1.0 for name in masks}


def counts(
    weight: Tensor, mask: Tensor | None, pattern: Pattern, strength: float
) -> Iterator[tuple[int, int, int, int]]:
    """Number of entries, of masked entries, of those that are not zero, and of groups that break the pattern.

    Args:
        weight: ``(out, in, ...)``.
        mask: of the shape of the weight; None if every entry is kept.
        pattern: weights that are masked together.
        strength: fraction of the sparsity of the pattern that is reached, in [0, 1].

    Yields:
        the numbers of a run of outputs.
    """
    for run in runs(weight, pattern):
        part = weight[run]
        kept = torch.ones_like(part, dtype=torch.bool) if mask is None else mask[run] != 0
        masked, alive = kept.numel() - int(kept.count_nonzero()), int(part.masked_fill(kept, 0).count_nonzero())
        yield kept.numel(), masked, alive, pattern.broken(kept, strength)
