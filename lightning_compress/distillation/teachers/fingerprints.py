"""Fingerprints: one number that identifies a sample by the bits of its tensors."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from lightning_compress.distillation.features import NetworkCall

__all__ = ["fingerprints"]

_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int32}


def fingerprints(call: NetworkCall) -> Tensor:
    """One 64-bit number for each sample: the sum of its words, each times an odd number that depends on its position.

    Zeros add nothing, so padding at the end leaves it unchanged.

    Args:
        call: inputs whose tensors share the first dimension, the batch.

    Returns:
        int64 of shape ``[batch]``, on the CPU.

    Raises:
        ValueError: there is no tensor among the inputs.
    """
    total: Tensor | int = 0
    for number, leaf in enumerate(leaf for leaf in tree_leaves((call.args, call.kwargs)) if isinstance(leaf, Tensor)):
        rows = leaf.detach().reshape(len(leaf), -1).contiguous().view(_WORDS[leaf.element_size()])
        if rows.dtype == torch.int32:
            # Round numbers end in zero bits, and a product loses the same number of bits at its other end.
            rows = rows ^ ((rows >> 16) & 0xFFFF)
        total = total + (rows * _odd_numbers(rows.shape[1], number, leaf.device)).sum(1)
    if isinstance(total, int):
        raise ValueError("need a tensor among the network's inputs to find the sample by, got none")
    return total.cpu()


@lru_cache(maxsize=8)
def _odd_numbers(count: int, seed: int, device: torch.device) -> Tensor:
    """SplitMix64, written out: a cache outlives the random generators of a torch version."""
    x = torch.arange(1, count + 1, dtype=torch.int64) * -7046029254386353131 + seed * 6364136223846793005
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * -4658895280553007687
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * -7723592293110705685
    return (x ^ (x >> 31) | 1).to(device)
