"""Masks: integers that set the entries of a weight to zero.

All bits of a mask are set where the weight is kept. The bitwise and of weight and mask gives exact positive zeros,
whatever value is masked, in the time of a multiplication. The mask of a small weight is as wide as the weight. That of
a large one takes a byte for each entry, and is widened block by block.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_compress.blocks import block_elements, blocks

__all__ = ["apply_", "mask_of"]

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
