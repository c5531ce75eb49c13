"""Blocks: large tensors in parts, and small ones side by side.

A computation on parts takes the memory of a part. On a CPU a part fits into the cache: the steps together read main
memory once. On other devices parts are larger, since every step on a part is a call of the device. Small tensors of one
shape are computed together, as one tensor: the calls would take longer than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["block_elements", "blocks", "bundles", "portions", "row_blocks", "row_parts", "stacked"]

_ON_CPU, _ELSEWHERE = 1 << 18, 1 << 24
_LEAST = 16  # small tensors in a block: larger ones take longer to copy than calls cost


def block_elements(device: torch.device) -> int:
    """Elements of a block on a device.

    >>> block_elements(torch.device("cpu"))
    262144
    """
    return _ON_CPU if device.type == "cpu" else _ELSEWHERE


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Divide tensors of one shape into the same parts, of at most :func:`block_elements` where a slice is that small.

    They are divided along the dimension in which the elements of the first tensor lie farthest apart.

    Args:
        tensors: of one shape.

    Yields:
        views of the parts, one for each tensor; together they hold every element once.

    >>> [part.shape for part, _ in blocks(torch.zeros(2, 1 << 18), torch.ones(2, 1 << 18))]
    [torch.Size([1, 262144]), torch.Size([1, 262144])]
    """
    first = tensors[0]
    most = block_elements(first.device)
    if first.numel() <= most:
        yield tensors
        return
    dim = max(range(first.ndim), key=lambda d: first.stride(d) if first.shape[d] > 1 else -1)
    length = max(1, most * first.shape[dim] // first.numel())
    yield from zip(*(torch.split(tensor, length, dim) for tensor in tensors), strict=True)


def row_blocks(rows: Tensor, multiple: int = 1) -> Iterator[slice]:
    """Divide the rows of a tensor, its first dimension, into runs of about :func:`block_elements`.

    Args:
        rows: ``(R, ...)``.
        multiple: the runs start at multiples of this number of rows.

    Yields:
        slices of the first dimension, one at least.

    >>> list(row_blocks(torch.zeros(5, 1 << 17)))
    [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    count = len(rows)
    length = max(1, block_elements(rows.device) * count // max(1, rows.numel()) // multiple) * multiple
    for start in range(0, max(1, count), length):
        yield slice(start, min(start + length, count))


def row_parts(*tensors: Tensor) -> Iterator[tuple[slice, tuple[Tensor, ...]]]:
    """Divide matrices of one shape into the same parts: some rows at a time, or a part of one long row.

    Args:
        tensors: ``(R, N)``.

    Yields:
        the rows, and views of the part, one for each matrix.

    >>> [(rows, part.shape) for rows, (part,) in row_parts(torch.zeros(1, 1 << 19))]
    [(slice(0, 1, None), torch.Size([1, 262144])), (slice(0, 1, None), torch.Size([1, 262144]))]
    """
    for run in row_blocks(tensors[0]):
        width = max(1, block_elements(tensors[0].device) // max(1, run.stop - run.start))
        parts = zip(*(torch.split(tensor[run], width, dim=1) for tensor in tensors), strict=True)
        yield from ((run, part) for part in parts)


def bundles(tensors: Mapping[str, Tensor], kind: Callable[[str], Hashable] = lambda name: None) -> list[list[str]]:
    """Group names: small tensors of one shape together, up to :func:`block_elements`; every large tensor by itself.

    Args:
        tensors: name -> tensor.
        kind: name -> what the tensors of a group have in common beside their shape, dtype, device and sharding.

    Returns:
        groups of names, in the order of their first names; each name is in one of them.

    >>> bundles({"a": torch.zeros(2), "b": torch.zeros(1 << 18), "c": torch.zeros(2)})
    [['a', 'c'], ['b']]
    """
    found: list[list[str]] = []
    filling: dict[Hashable, list[str]] = {}
    for name, tensor in tensors.items():
        room = block_elements(tensor.device) // max(1, tensor.numel())
        if room < _LEAST:
            found.append([name])
            continue
        sharding = getattr(tensor, "device_mesh", None), getattr(tensor, "placements", None)
        key = tensor.shape, tensor.dtype, tensor.device, sharding, kind(name)
        if len(filling.setdefault(key, [])) in (0, room):
            filling[key] = []
            found.append(filling[key])
        filling[key].append(name)
    return found


def portions(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Divide tensors into groups of at most :func:`block_elements`; every larger tensor is a group by itself.

    Args:
        tensors: name -> tensor.

    Yields:
        name -> tensor, in their order; together they hold every tensor once.

    >>> tensors = {"a": torch.zeros(2), "b": torch.zeros(2), "c": torch.zeros(1 << 20), "d": torch.zeros(2)}
    >>> [list(some) for some in portions(tensors)]
    [['a', 'b'], ['c'], ['d']]
    """
    some: dict[str, Tensor] = {}
    room = 0
    for name, tensor in tensors.items():
        room -= tensor.numel()
        if room < 0:
            if some:
                yield some
            some, room = {}, block_elements(tensor.device) - tensor.numel()
        some[name] = tensor
    if some:
        yield some


def stacked(tensors: Sequence[Tensor]) -> Tensor:
    """Stack tensors of one shape along a new first dimension; a view, not a copy, of a single tensor.

    >>> stacked([torch.zeros(2), torch.ones(2)]).tolist()
    [[0.0, 0.0], [1.0, 1.0]]
    """
    return tensors[0][None] if len(tensors) == 1 else torch.stack(list(tensors))
