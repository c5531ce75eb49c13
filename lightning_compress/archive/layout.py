"""The layout of an archive: in which block every tensor lies, alone, with other small ones, or tied to another."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_compress.archive.coding.headers import DTYPES, Block, Entry
from lightning_compress.archive.coding.words import bytes_of
from lightning_compress.archive.forms.dense import Dense
from lightning_compress.archive.forms.selection import FORMS, encode
from lightning_compress.arguments import shown

__all__ = ["SMALL", "check_tensors", "gathered"]

SMALL = 1 << 12
"""Elements up to which tensors that have no better form than dense go into one block."""


def check_tensors(tensors: object, records: object) -> None:
    """Refuse what is no mapping, such as a module in place of its state dict.

    Raises:
        TypeError: tensors or records are none.
    """
    if records is not None and not isinstance(records, Mapping):
        raise TypeError(f"need records as a mapping of values by name, got {shown(records)}")
    if not isinstance(tensors, Mapping):
        way_out = ": write module.state_dict()" if isinstance(tensors, nn.Module) else ""
        raise TypeError(f"need tensors as a mapping of tensors by name, got {shown(tensors)}{way_out}")


def gathered(tensors: list[tuple[str, Tensor]]) -> tuple[list[Entry], list[Block], list[bytes]]:
    """Where every tensor goes, and the blocks as they are stored, in pieces."""
    entries: list[Entry] = []
    data: list[list[bytes]] = []
    dtypes: list[torch.dtype] = []
    shared: dict[tuple[object, ...], int] = {}
    pools: dict[torch.dtype, tuple[int, list[Tensor]]] = {}
    for position, (name, tensor) in enumerate(tensors):
        owner = shared.setdefault(_memory(name, tensor) or (position,), position)
        if owner != position:
            entries.append(Entry(name, tuple(tensor.shape), entries[owner].block, owner))
            continue
        plain = _plain(tensor)
        alone = encode(plain)
        index = len(data)
        if plain.numel() <= SMALL and FORMS[alone[0][0]] is Dense:
            index, pool = pools.setdefault(tensor.dtype, (index, []))
            pool.append(bytes_of(plain))
        if index == len(data):
            data.append(alone)
            dtypes.append(tensor.dtype)
        entries.append(Entry(name, tuple(tensor.shape), index))
    for index, pool in pools.values():
        data[index] = encode(torch.cat(pool).view(dtypes[index]))
    blocks = [Block(dtype, sum(map(len, pieces))) for dtype, pieces in zip(dtypes, data, strict=True)]
    return entries, blocks, [piece for pieces in data for piece in pieces]


def _memory(name: str, tensor: Tensor) -> tuple[object, ...]:
    """A key that only tied tensors have in common; empty for a tensor without elements, which is tied to none."""
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise TypeError(f"need tensors by name, got {type(tensor).__name__} for {name!r}")
    if tensor.layout is not torch.strided or tensor.device.type == "meta" or str(tensor.dtype)[6:] not in DTYPES:
        raise TypeError(
            f"need dense tensors with memory of an unquantized dtype, "
            f"got {tensor.layout}, {tensor.device}, {tensor.dtype} for {name!r}"
        )
    if tensor.numel() == 0:
        return ()
    place = tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride()
    return tensor.device, tensor.dtype, tensor.is_conj(), tensor.is_neg(), *place


def _plain(tensor: Tensor) -> Tensor:
    """The same elements, contiguous on the CPU, with nothing left to be resolved."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if tensor.dtype.itemsize == 1:  # torch copies bytes of any dtype, but not every dtype
        return tensor.view(torch.uint8).contiguous().view(tensor.dtype)
    return tensor.contiguous()
