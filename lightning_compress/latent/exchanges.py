"""Exchanges: the values of many tensors, copied at once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["store_", "write_"]


def write_(tensors: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Overwrite the tensors for which there are values.

    >>> tensors = {"a": torch.zeros(1), "b": torch.zeros(1)}
    >>> write_(tensors, {"a": torch.ones(1)}); tensors
    {'a': tensor([1.]), 'b': tensor([0.])}
    """
    if values:
        torch._foreach_copy_([tensors[name] for name in values], list(values.values()))


def store_(copies: dict[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Keep copies of values, in the memory of the copies that are there."""
    write_(copies, {name: value for name, value in values.items() if name in copies})
    copies.update({name: value.clone() for name, value in values.items() if name not in copies})
