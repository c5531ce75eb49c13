"""Masks: integers that set the entries of a weight to zero.

A mask is as wide as its weight, with all bits set where the weight is kept. The bitwise and of weight and mask gives
exact positive zeros, whatever value is masked, in the time of a multiplication.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

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
    return -kept.to(_INTEGERS[weight.element_size()])


def apply_(masks: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Mask the tensors in place; a tensor without a mask stays as it is.

    Args:
        masks: name -> mask.
        tensors: name -> tensor of the shape of the mask.

    >>> weight = torch.tensor([3.0, -5.0])
    >>> apply_({"w": torch.tensor([-1, 0], dtype=torch.int32)}, {"w": weight}); weight.tolist()
    [3.0, 0.0]
    """
    for name in masks.keys() & tensors.keys():
        tensor, mask = tensors[name], masks[name]
        if tensor.element_size() == mask.element_size():
            tensor.view(mask.dtype).bitwise_and_(mask)
        else:  # optimizer state in another precision than the weights
            tensor.masked_fill_(mask == 0, 0)
