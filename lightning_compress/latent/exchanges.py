"""Exchanges: the values of many tensors, copied at once."""

from __future__ import annotations

from collections.abc import Collection, Mapping

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


def store_(copies: dict[str, Tensor], values: Mapping[str, Tensor], short: Collection[str] = ()) -> None:
    """Keep copies of values, in the memory of the copies that are there.

    Args:
        copies: name -> copy.
        values: name -> value.
        short: names of the values that are kept in bfloat16, if they are longer.

    >>> store_(copies := {}, {"a": torch.tensor([1.001]), "b": torch.tensor([1.001])}, short=["b"]); copies
    {'a': tensor([1.0010]), 'b': tensor([1.], dtype=torch.bfloat16)}
    """
    kept = {n: value for n, value in values.items() if n in copies and (n in short or copies[n].dtype == value.dtype)}
    write_(copies, kept)
    for name in [name for name in values if name not in kept]:  # in their order, which is the same on all processes
        shorter = name in short and values[name].element_size() > 2
        copies[name] = values[name].to(torch.bfloat16 if shorter else values[name].dtype, copy=True)
