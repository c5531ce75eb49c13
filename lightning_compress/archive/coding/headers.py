"""The header of an archive: which tensors there are, and in which block the elements of each lie."""

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
        name: in the state dict.
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


def write_header(entries: list[Entry], blocks: list[Block]) -> bytes:
    """The deflated header; blocks must be in the order in which the entries first name them.

    Raises:
        ValueError: if there is more than an archive may hold.
    """
    parts, opened = [varint(len(entries))], 0
    for entry in entries:
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
    plain = b"".join(parts)
    if len(entries) > TENSORS or len(plain) > LONGEST or any(len(entry.shape) > DIMENSIONS for entry in entries):
        raise ValueError(
            f"need at most {TENSORS} tensors of {DIMENSIONS} dimensions, {LONGEST} bytes of header, "
            f"got {len(entries)} tensors and {len(plain)} bytes"
        )
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    return deflate.compress(plain) + deflate.flush()


def read_header(data: bytes) -> tuple[list[Entry], list[Block]]:
    """Parse a deflated header.

    Raises:
        ArchiveError: if it is not exactly a header.
    """
    inflate = zlib.decompressobj(-15)
    try:
        cursor = Cursor(inflate.decompress(data, LONGEST))
    except zlib.error as error:
        raise ArchiveError(f"the archive is damaged: its header does not inflate ({error})") from None
    count = cursor.varint()
    entries: list[Entry] = []
    blocks: list[Block] = []
    if count > TENSORS or not inflate.eof or inflate.unused_data:
        raise ArchiveError(f"the archive is damaged: its header, of {count} tensors, is too long")
    for _ in range(count):
        entries.append(_read_entry(cursor, entries, blocks))
    if cursor.remaining or len({entry.name for entry in entries}) < count:
        raise ArchiveError("the archive is damaged: its header has a name twice or bytes left over")
    return entries, blocks


def _read_entry(cursor: Cursor, entries: list[Entry], blocks: list[Block]) -> Entry:
    """The next entry; a block that it opens is appended to the blocks."""
    try:
        name = cursor.take(cursor.varint()).decode()
    except UnicodeDecodeError:
        raise ArchiveError("the archive is damaged: a name is not UTF-8") from None
    place = cursor.varint()
    index = (place - 1) // 2
    if place % 2:
        if index >= len(entries):
            raise ArchiveError(f"the archive is damaged: {name!r} is tied to a tensor that does not come before it")
        return Entry(name, entries[index].shape, entries[index].block, index)
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
