"""Contents of an archive: form, bytes and entropy bound of each tensor, and the records beside them."""

import os
from dataclasses import dataclass, field
from typing import Any

import torch

from lightning_compress.archive.coding.records import read_records
from lightning_compress.archive.files import opened, read_forms, read_index


@dataclass(frozen=True)
class ArchivedTensor:
    """One tensor of an archive.

    Attributes:
        name: in the state dict; empty in the records.
        shape: sizes of its dimensions.
        dtype: dtype of its elements.
        form: "dense", "palette", "sparse" or "grid"; "packed" for a small tensor in a block with others;
            "tied" for one that is tied to an earlier one.
        count: number of elements.
        bytes: size in the file, without the header; a packed tensor counts its fraction of the block.
        entropy_bytes: the zero-order entropy of its streams, plus its scales and palette as plain numbers: the least
            size of a code for single elements, if the frequencies of all codes were known.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    form: str
    count: int
    bytes: float
    entropy_bytes: float

    @property
    def bits_per_weight(self) -> float:
        """Bits in the file per element; 0 if there is none."""
        return 8 * self.bytes / self.count if self.count else 0.0

    @property
    def dense_bytes(self) -> int:
        """Bytes in memory; 0 if shared."""
        return 0 if self.form == "tied" else self.count * self.dtype.itemsize


@dataclass(frozen=True)
class ArchiveContents:
    """The contents of an archive.

    Attributes:
        tensors: those of the state dict, in their order.
        file_bytes: the length of the file.
        records: the records beside the state dict, with an `ArchivedTensor` in place of each tensor.
        record_bytes: size in the file of the tensors in the records.
        complete: whether the state dict alone is the model.
    """

    tensors: tuple[ArchivedTensor, ...]
    file_bytes: int
    records: dict[str, Any] = field(default_factory=dict)
    record_bytes: float = 0.0
    complete: bool = True

    @property
    def dense_bytes(self) -> int:
        """Size of the tensors in memory."""
        return sum(tensor.dense_bytes for tensor in self.tensors)

    @property
    def entropy_bytes(self) -> float:
        """The least size of a code for single elements; see `ArchivedTensor`."""
        return sum(tensor.entropy_bytes for tensor in self.tensors)

    @property
    def ratio(self) -> float:
        """How many times smaller the file is than the tensors in memory."""
        return self.dense_bytes / self.file_bytes


def inspect_archive(path: str | os.PathLike[str], max_bytes: int | None = None) -> ArchiveContents:
    """List the tensors of an archive, with their entropy bounds.

    Args:
        path: a file written by `save_archive`.
        max_bytes: as in `load_archive`.

    Raises:
        ArchiveError: as in `load_archive`.

    Example:
        >>> from pathlib import Path
        >>> import tempfile
        >>> from lightning_compress.archive import save_archive
        >>> path = Path(tempfile.mkdtemp()) / "m.lcz"
        >>> save_archive({"weight": torch.eye(100)}, path)
        >>> tensor = inspect_archive(path).tensors[0]
        >>> tensor.form, tensor.bytes, round(tensor.entropy_bytes, 1)
        ('grid', 119.0, 105.0)
    """
    with opened(path) as file:
        header = read_index(file, max_bytes)
        shares = header.shares()
        listed: dict[int, ArchivedTensor] = {}
        for block, members, form in read_forms(file, header):
            total, bound = sum(header.entries[position].count for position in members), form.bound() / 8
            for position in members:
                entry = header.entries[position]
                part = entry.count / total if total else 1 / len(members)
                name = form.name if len(members) == 1 else "packed"
                listed[position] = ArchivedTensor(
                    entry.name, entry.shape, block.dtype, name, entry.count, shares[position], part * bound
                )
        length = file.seek(0, os.SEEK_END)
    for position, entry in enumerate(header.entries):
        if entry.tied_to is not None:
            dtype = header.blocks[entry.block].dtype
            listed[position] = ArchivedTensor(entry.name, entry.shape, dtype, "tied", entry.count, 0, 0)
    everything = [listed[position] for position in range(len(header.entries))]
    named, others = everything[: header.named], everything[header.named :]
    return ArchiveContents(
        tuple(named),
        length,
        read_records(header.records, header.named, others),
        sum(tensor.bytes for tensor in others),
        header.complete,
    )
