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

    The offsets of several weights are computed twice: to keep them all would take as much memory as the weights. A
    weight of shorter precision than its offset is shifted in a copy.

    Args:
        weights: name -> weight, overwritten.
        offsets: name -> offset, of some of them.

    >>> weights = {"p": torch.tensor([0.25])}
    >>> with shifted(weights, {"p": lambda: torch.tensor([0.5])}) as sums:
    ...     _ = sums["p"].round_()
    >>> weights["p"].tolist()
    [0.5]
    """
    sums, kept = dict(weights), dict[str, Tensor]()
    names = weights.keys() & offsets.keys()
    for name in names:
        offset = offsets[name]()
        if len(names) == 1:
            kept[name] = offset
        precise = torch.promote_types(offset.dtype, weights[name].dtype)
        sums[name] = weights[name].to(precise).add_(offset)
    yield sums
    for name in names:
        offset = kept[name] if kept else offsets[name]()
        if sums[name] is weights[name]:
            sums[name].sub_(offset)
        else:
            weights[name].copy_(sums[name] - offset)
