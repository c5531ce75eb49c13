"""The archive as a file: a head, the header, blocks of elements, a checksum; see docs/archive.md."""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch
from torch import Tensor

from lightning_compress.archive.coding.cursors import ArchiveError
from lightning_compress.archive.coding.headers import Block, Header, read_header, write_header
from lightning_compress.archive.coding.records import read_records, write_records
from lightning_compress.archive.forms.selection import Form, read_form
from lightning_compress.archive.layout import check_tensors, gathered
from lightning_compress.arguments import check_count, check_file, check_path
from lightning_compress.drafts import draft_of

MAGIC = b".lcz"
VERSION = 2
HEAD = len(MAGIC) + 1 + 6 + 3  # magic, version, length of the file, length of the header
CHECKSUM = 8


class Sizes(NamedTuple):
    """The sizes of an archive.

    Attributes:
        file: length of the file in bytes.
        tensors: name -> bytes in it, without the header; small tensors share a block, a tied tensor takes none.
    """

    file: int
    tensors: dict[str, float]


class Archived(NamedTuple):
    """The content of an archive.

    Attributes:
        tensors: the state dict, on the CPU.
        records: plain values and tensors beside it; see `save_archive`.
        complete: whether the state dict alone is the model.
    """

    tensors: dict[str, Tensor]
    records: dict[str, Any]
    complete: bool


def save_archive(
    tensors: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    records: Mapping[str, Any] | None = None,
    *,
    complete: bool = True,
) -> None:
    """Write tensors, such as a state dict, losslessly to one file, each as small as its values allow.

    The form of a tensor is found by looking at it alone: few distinct values become a palette, multiples of
    scales become integers, zeros become codes; all are entropy coded. Tied tensors (the same memory, offset,
    shape and strides) are stored once.

    Args:
        tensors: dense tensors by name, of any dtype but the deprecated quantized ones, on any device.
        path: the file, by convention `*.lcz`; it appears complete or not at all.
        records: what a state dict cannot hold: dictionaries, lists, tuples, text, numbers, truth values, None and
            tensors, by name.
        complete: whether the tensors alone are the model; if not, `load_archive` warns.

    Raises:
        TypeError: if a value is no tensor, or one without plain memory, or a record is not plain.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "m.lcz"
        >>> save_archive({"weight": torch.eye(100)}, path)
        >>> path.stat().st_size, torch.equal(load_archive(path)["weight"], torch.eye(100))
        (157, True)
    """
    check_path(path=path)
    pieces = _pieces(*_content(tensors, records, complete))
    with draft_of(path) as draft, draft.open("wb") as file:
        file.writelines(pieces)


def archived_bytes(
    tensors: Mapping[str, Tensor], records: Mapping[str, Any] | None = None, *, complete: bool = True
) -> int:
    """The length in bytes of the file that `save_archive` would write."""
    return archived_sizes(tensors, records, complete=complete).file


def archived_sizes(
    tensors: Mapping[str, Tensor], records: Mapping[str, Any] | None = None, *, complete: bool = True
) -> Sizes:
    """The bytes of the file that `save_archive` would write, and of each tensor in it.

    Example:
        >>> archived_sizes({"weight": torch.zeros(1000, 1000), "bias": torch.ones(10)})
        Sizes(file=74, tensors={'weight': 13.0, 'bias': 11.0})
    """
    header, data = _content(tensors, records, complete)
    return Sizes(sum(map(len, _pieces(header, data))), dict(zip(tensors, header.shares(), strict=False)))


def load_archive(path: str | os.PathLike[str], max_bytes: int | None = None) -> dict[str, Tensor]:
    """The tensors of an archive, bit for bit, contiguous, on the CPU; tied tensors are tied again.

    Nothing in a file is ever run. The checksum is verified before anything is parsed, and every size before
    memory is taken. Beside the result a load needs little more than the largest block of the file.

    A warning says when the tensors alone are not the model that was exported, because channels were removed, layers
    split or activations quantized: `load_compressed` gives that model.

    Args:
        path: a file written by `save_archive`.
        max_bytes: refuse a file whose tensors take more; by default 1024 times the length of the file or
            1 GiB, whichever is more, so that no small file takes much memory.

    Raises:
        ArchiveError: if the file is foreign, truncated, altered, or from a newer version; it says which.
    """
    archived = read_archive(path, max_bytes)
    if not archived.complete:
        name = os.path.basename(path)
        warnings.warn(
            f"the state dict in {name} alone is not the model: its records hold removed channels, split layers or "
            f"activation quantizers; load_compressed(Class, {name!r}) gives the whole model",
            stacklevel=2,
        )
    return archived.tensors


def read_archive(path: str | os.PathLike[str], max_bytes: int | None = None) -> Archived:
    """The tensors and records of an archive.

    Args:
        path: as in `load_archive`.
        max_bytes: as in `load_archive`.

    Raises:
        ArchiveError: as in `load_archive`.
    """
    with opened(path) as file:
        header = read_index(file, max_bytes)
        tensors = _read_tensors(file, header)
        records = read_records(header.records, header.named, tensors[header.named :])
    named = {entry.name: tensor for entry, tensor in zip(header.entries[: header.named], tensors, strict=False)}
    return Archived(named, records, header.complete)


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """An archive that is open; the errors of what is read from it name the file."""
    check_file(path=path)
    with Path(path).open("rb") as file:
        try:
            yield file
        except ArchiveError as error:
            raise ArchiveError(f"{error} (in {str(path)!r})") from error


def _read_tensors(file: BinaryIO, header: Header) -> list[Tensor]:
    loaded: dict[int, Tensor] = {}
    for block, members, form in read_forms(file, header):
        shapes = [header.entries[position].shape for position in members]
        sizes = [header.entries[position].count * block.dtype.itemsize for position in members]
        elements = torch.empty(sum(sizes), dtype=torch.uint8)
        form.fill(elements.view(block.dtype))
        for position, shape, part in zip(members, shapes, torch.split(elements, sizes), strict=True):
            # Tensors that were not tied must not become views of one memory.
            own = part.clone() if len(members) > 1 else part
            loaded[position] = own.view(block.dtype).view(shape)
    owners = (at if entry.tied_to is None else entry.tied_to for at, entry in enumerate(header.entries))
    return [loaded[owner] for owner in owners]


def read_index(file: BinaryIO, max_bytes: int | None = None) -> Header:
    """Verify an archive and read its header; the file is left at the first block.

    Raises:
        ArchiveError: as in `load_archive`.
    """
    length = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(HEAD)
    _check_head(head, length)
    _check_sum(file, length)
    file.seek(HEAD)
    size = int.from_bytes(head[-3:], "little")
    header = read_header(file.read(size), version=head[4])
    if HEAD + size + sum(block.size for block in header.blocks) + CHECKSUM != length:
        raise ArchiveError("the archive is damaged: its blocks do not fill the file")
    limit = max(1 << 30, 1024 * length) if max_bytes is None else max_bytes
    check_count(max_bytes=limit)
    owners = [entry for entry in header.entries if entry.tied_to is None]
    need = sum(entry.count * header.blocks[entry.block].dtype.itemsize for entry in owners)
    if need > limit:
        raise ArchiveError(f"need max_bytes of at least {need} to load this archive of {length} bytes, got {limit}")
    return header


def read_forms(file: BinaryIO, header: Header) -> Iterator[tuple[Block, list[int], Form]]:
    """Every block in turn, parsed but not decoded, with the positions of the tensors that lie in it."""
    members: list[list[int]] = [[] for _ in header.blocks]
    for position, entry in enumerate(header.entries):
        if entry.tied_to is None:
            members[entry.block].append(position)
    for block, inside in zip(header.blocks, members, strict=True):
        count = sum(header.entries[position].count for position in inside)
        yield block, inside, read_form(file.read(block.size), count, block.dtype)


def _check_head(head: bytes, length: int) -> None:
    if not head.startswith(MAGIC) and not (length < len(MAGIC) and MAGIC.startswith(head)):
        raise ArchiveError(
            f"need a file that starts with {MAGIC!r}, got {head[: len(MAGIC)]!r}: this is not an archive"
        )
    if head[4:5] > bytes([VERSION]):
        raise ArchiveError(f"written by a newer version: need format {VERSION}, got {head[4]}; update the package")
    if head[4:5] == b"\0":
        raise ArchiveError("the archive is altered: there is no format 0")
    stated = int.from_bytes(head[5:11], "little")
    if length < max(HEAD + CHECKSUM, stated):
        raise ArchiveError(f"the archive is truncated: need {max(HEAD + CHECKSUM, stated)} bytes, got {length}")
    if length > stated:
        raise ArchiveError(f"the archive is altered: need {stated} bytes, got {length}")


def _check_sum(file: BinaryIO, length: int) -> None:
    file.seek(0)
    digest = blake2b(digest_size=CHECKSUM)
    left = length - CHECKSUM
    while left and (piece := file.read(min(left, 1 << 20))):
        digest.update(piece)
        left -= len(piece)
    if file.read(CHECKSUM) != digest.digest():
        raise ArchiveError("the archive is altered: its checksum does not match its content")


def _content(tensors: Mapping[str, Tensor], records: Any, complete: bool) -> tuple[Header, list[bytes]]:
    """The header, and the blocks in pieces."""
    check_tensors(tensors, records)
    plain, others = write_records(dict(records), len(tensors)) if records else (b"", [])
    entries, blocks, data = gathered([*tensors.items(), *(("", tensor) for tensor in others)])
    return Header(entries, blocks, len(tensors), plain, complete), data


def _pieces(contents: Header, data: list[bytes]) -> list[bytes]:
    """The file in pieces."""
    header = write_header(contents)
    length = HEAD + len(header) + sum(map(len, data)) + CHECKSUM
    head = MAGIC + bytes([contents.version]) + length.to_bytes(6, "little") + len(header).to_bytes(3, "little")
    digest = blake2b(digest_size=CHECKSUM)
    for piece in (head, header, *data):
        digest.update(piece)
    return [head, header, *data, digest.digest()]
