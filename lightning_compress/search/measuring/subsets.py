"""Subsets: a fixed number of examples of the data, in batches and one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_compress.example_inputs import first_samples, on_device
from lightning_compress.search.objectives import size_of

__all__ = ["count_of", "singly", "subset"]

_BATCH = 256  # examples, of a pair of tensors


def subset(data: Any, examples: int, device: torch.device) -> list[Any]:
    """The first examples of the data, in batches on a device; the same in every call.

    A loader that shuffles draws its order from the global generator of torch, which is seeded for it and left as it
    was.

    Args:
        data: an iterable of batches, or a pair of tensors.
        examples: number of examples; all if there are fewer.
        device: of the batches.

    Raises:
        TypeError: the data is neither.
        ValueError: there are no examples.

    >>> [batch[0].tolist() for batch in subset([torch.arange(6).split(3)], 2, torch.device("cpu"))]
    [[0, 1]]
    """
    taken: list[Any] = []
    left = examples
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        for batch in _batches(data):
            part = first_samples(batch, left)
            taken.append(on_device(part, device))
            left -= size_of(part)
            if left <= 0:
                break
    if left == examples:
        raise ValueError("need data with at least one example, got none")
    return taken


def count_of(batches: Sequence[Any]) -> int:
    """Number of examples in some batches."""
    return sum(map(size_of, batches))


def singly(batches: Sequence[Any], examples: int) -> Iterator[Any]:
    """The first examples of some batches, each as a batch of one.

    >>> [one.tolist() for one in singly([torch.arange(3)], 2)]
    [[0], [1]]
    """
    left = examples
    for batch in batches:
        size = size_of(batch)
        for number in range(min(size, left)):
            yield _row(batch, number, size)
        left -= size
        if left <= 0:
            return


def _row(batch: Any, number: int, size: int) -> Any:
    return apply_to_collection(
        batch,
        Tensor,
        lambda tensor: tensor[number : number + 1] if tensor.ndim and len(tensor) == size else tensor,
        allow_frozen=True,
    )


def _batches(data: Any) -> Iterable[Any]:
    if isinstance(data, tuple | list) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        if len(data[0]) != len(data[1]):
            raise ValueError(f"need a pair of tensors of one length, got lengths {len(data[0])} and {len(data[1])}")
        return zip(data[0].split(_BATCH), data[1].split(_BATCH), strict=True)
    if isinstance(data, Tensor | str) or not isinstance(data, Iterable):
        raise TypeError(f"need data as a loader of batches or a pair of tensors, got {type(data).__name__}")
    return data
