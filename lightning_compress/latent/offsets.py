"""Offsets: what the forward pass adds to a parameter, such as an adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

__all__ = ["Offset", "shifted"]

Offset: TypeAlias = Callable[[], Tensor]
"""Gives the present offset of one parameter, in its shape."""


@contextmanager
def shifted(weights: Mapping[str, Tensor], offsets: Mapping[str, Offset]) -> Iterator[dict[str, Tensor]]:
    """Add the offsets to weights, in a ``with`` statement, and subtract them at its end.

    Each offset is computed twice: to keep them all would take as much memory as the weights. A weight of shorter
    precision than its offset is shifted in a copy.

    Args:
        weights: name -> weight, overwritten.
        offsets: name -> offset, of some of them.

    >>> weights = {"p": torch.tensor([0.25])}
    >>> with shifted(weights, {"p": lambda: torch.tensor([0.5])}) as sums:
    ...     _ = sums["p"].round_()
    >>> weights["p"].tolist()
    [0.5]
    """
    sums = dict(weights)
    for name in weights.keys() & offsets.keys():
        offset = offsets[name]()
        precise = torch.promote_types(offset.dtype, weights[name].dtype)
        sums[name] = weights[name].to(precise).add_(offset)
    yield sums
    for name in weights.keys() & offsets.keys():
        if sums[name] is weights[name]:
            sums[name].sub_(offsets[name]())
        else:
            weights[name].copy_(sums[name] - offsets[name]())
