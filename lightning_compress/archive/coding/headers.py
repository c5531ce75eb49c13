"""The header of an archive: which tensors and records there are, and in which block the elements of each tensor lie."""

import math
import zlib
from dataclasses import dataclass

import torch

from lightning_compress.archive.coding.cursors import ArchiveError, Cursor, varint

LONGEST = 1 << 23  # the most bytes of a header when inflated
TENSORS = 1 << 17  # the most tensors of an archive
DIMENSIONS = 64  # the most dimensions of a tensor

# The number of a dtype in a file is its position here: new ones go to the end.
DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool"),
    *("uint16", "uint32", "uint64", "complex32", "complex64", "complex128"),
    *(
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "float4_e2m1fn_x2",
    ),
    *("int1", "int2", "int3", "int4", "int5", "int6", "int7"),
    *("uint1", "uint2", "uint3", "uint4", "uint5", "uint6", "uint7"),
    *("bits1x8", "bits2x4", "bits4x2", "bits8", "bits16"),
)


@dataclass(frozen=True)
class Block:
    """A run of bytes in the file that holds the elements of one tensor, or of several one after the other.

    Attributes:
        dtype: of all its tensors.
        size: bytes in the file.
    """

    dtype: torch.dtype
    size: int


@dataclass(frozen=True)
class Entry:
    """A tensor of the archive.

    Attributes:
        name: in the state dict; empty for a tensor of the records.
        shape: its sizes.
        block: the position of the block that holds its elements.
        tied_to: the position of the earlier tensor with the same memory, or None.
    """

    name: str
    shape: tuple[int, ...]
    block: int
    tied_to: int | None = None

    @property
    def count(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """The content of an archive.

    Attributes:
        entries: the tensors, those of the state dict first.
        blocks: in the order in which the entries first name them.
        named: the number of tensors in the state dict; the others belong to the records.
        records: the records as JSON; see :mod:`~.records`. Empty if there are none.
        complete: whether the state dict alone is the model.
    """

    entries: list[Entry]
    blocks: list[Block]
    named: int
    records: bytes = b""
    complete: bool = True

    @property
    def version(self) -> int:
        """The version of the format that can hold this: records came with version 2."""
        return 2 if self.records else 1

    def shares(self) -> list[float]:
        """Bytes of every entry in its block; tensors in one block share it by their elements, a tied one takes none."""
        own = [entry for entry in self.entries if entry.tied_to is None]
        counts, members = [0] * len(self.blocks), [0] * len(self.blocks)
        for entry in own:
            counts[entry.block] += entry.count
            members[entry.block] += 1
        return [
            0.0
            if entry.tied_to is not None
            else self.blocks[entry.block].size
            * (entry.count / counts[entry.block] if counts[entry.block] else 1 / members[entry.block])
            for entry in self.entries
        ]


def write_header(header: Header) -> bytes:
    """The deflated header.

    Raises:
        ValueError: if there is more than an archive may hold.
    """
    entries, blocks = header.entries, header.blocks
    parts, opened = [varint(header.named)], 0
    for position, entry in enumerate(entries):
        if position == header.named:
            parts.append(varint(len(entries) - header.named))
        if position < header.named:
            name = entry.name.encode()
            parts += [varint(len(name)), name]
        if entry.tied_to is not None:
            parts.append(varint(2 * entry.tied_to + 1))
            continue
        if entry.block < opened:
            parts.append(varint(2 * entry.block + 2))
        else:
            block = blocks[opened]
            parts += [varint(0), bytes([DTYPES.index(str(block.dtype)[6:])]), varint(block.size)]
            opened += 1
        parts += [varint(len(entry.shape)), *map(varint, entry.shape)]
    if header.version > 1:
        parts += [varint(0)] * (len(entries) == header.named)
        parts += [varint(header.complete), varint(len(header.records)), header.records]
    plain = b"".join(parts)
    if len(entries) > TENSORS or len(plain) > LONGEST or any(len(entry.shape) > DIMENSIONS for entry in entries):
        raise ValueError(
            f"need at most {TENSORS} tensors of {DIMENSIONS} dimensions, {LONGEST} bytes of header, "
            f"got {len(entries)} tensors and {len(plain)} bytes"
        )
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(plain) + deflate.flush()


def read_header(data: bytes, version: int) -> Header:
    """Parse a deflated header.

    Args:
        data: the header.
        version: of the format.

    Raises:
        ArchiveError: if it is not exactly a header.
    """
    inflate = zlib.decompressobj(-15)
    try:
        cursor = Cursor(inflate.decompress(data, LONGEST))
    except zlib.error as error:
        raise ArchiveError(f"the archive is damaged: its header does not inflate ({error})") from None
    if not inflate.eof or inflate.unused_data:
        raise ArchiveError("the archive is damaged: its header is too long")
    entries: list[Entry] = []
    blocks: list[Block] = []
    named = _read_count(cursor, entries)
    for _ in range(named):
        entries.append(_read_entry(cursor, _read_name(cursor), entries, blocks))
    if len({entry.name for entry in entries}) < named:
        raise ArchiveError("the archive is damaged: its header has a name twice")
    records, complete = b"", 1
    if version > 1:
        for _ in range(_read_count(cursor, entries)):
            entries.append(_read_entry(cursor, "", entries, blocks))
        complete = cursor.varint()
        records = cursor.take(cursor.varint())
    if cursor.remaining or complete > 1:
        raise ArchiveError("the archive is damaged: its header has bytes left over")
    return Header(entries, blocks, named, records, bool(complete))


def _read_count(cursor: Cursor, entries: list[Entry]) -> int:
    count = cursor.varint()
    if len(entries) + count > TENSORS:
        raise ArchiveError(f"the archive is damaged: its header, of {len(entries) + count} tensors, is too long")
    return count


def _read_name(cursor: Cursor) -> str:
    try:
        return cursor.take(cursor.varint()).decode()
    except UnicodeDecodeError:
        raise ArchiveError("the archive is damaged: a name is not UTF-8") from None


def _read_entry(cursor: Cursor, name: str, entries: list[Entry], blocks: list[Block]) -> Entry:
    """The next entry; a block that it opens is appended to the blocks."""
    place = cursor.varint()
    index = (place - 1) // 2
    if place % 2:
        if index >= len(entries):
            raise ArchiveError(f"the archive is damaged: {name!r} is tied to a tensor that does not come before it")
        tied_to = entries[index].tied_to
        return Entry(name, entries[index].shape, entries[index].block, index if tied_to is None else tied_to)
    if place == 0:
        index = len(blocks)
        blocks.append(Block(_dtype(cursor.take(1)[0], name), cursor.varint()))
    if index >= len(blocks):
        raise ArchiveError(f"the archive is damaged: {name!r} lies in a block that does not exist")
    return Entry(name, _read_shape(cursor, name), index)


def _read_shape(cursor: Cursor, name: str) -> tuple[int, ...]:
    dimensions = cursor.varint()
    if dimensions > DIMENSIONS:
        raise ArchiveError(f"the archive is damaged: {name!r} has {dimensions} dimensions")
    shape = tuple(cursor.varint() for _ in range(dimensions))
    if math.prod(size for size in shape if size) >> 63:
        raise ArchiveError(f"the archive is damaged: {name!r} has the impossible shape {shape}")
    return shape


def _dtype(number: int, name: str) -> torch.dtype:
    if number >= len(DTYPES):
        raise ArchiveError(f"the archive is damaged: {name!r} has the unknown dtype {number}")
    dtype = getattr(torch, DTYPES[number], None)
    if not isinstance(dtype, torch.dtype):
        raise ArchiveError(f"{name!r} has dtype {DTYPES[number]}, which this version of torch does not know")
    return dtype
