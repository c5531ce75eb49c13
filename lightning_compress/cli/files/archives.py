"""Archives: their tensors and records."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from lightning_compress.archive import ArchiveContents, ArchivedTensor, inspect_archive
from lightning_compress.cli.screens.tables import narrow_table, pairs_table, printable

__all__ = ["as_dict", "described", "read", "tables"]

_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 60


def read(path: Path) -> ArchiveContents:
    """Read the index of an archive.

    Raises:
        ArchiveError: the file is no archive, or damaged.
        OSError: the file cannot be read.
    """
    return inspect_archive(path)


def tables(contents: ArchiveContents) -> list[Table]:
    """The tensors, one by one and in total, and the records."""
    return [_tensors(contents), *([_records(contents)] if contents.records else [])]


def as_dict(contents: ArchiveContents) -> dict[str, Any]:
    """Everything as numbers and text."""
    return {
        "file_bytes": contents.file_bytes,
        "dense_bytes": contents.dense_bytes,
        "entropy_bytes": contents.entropy_bytes,
        "complete": contents.complete,
        "records": dict(described(contents.records)),
        "tensors": [
            {
                "name": tensor.name,
                "shape": list(tensor.shape),
                "dtype": str(tensor.dtype).removeprefix("torch."),
                "form": tensor.form,
                "bytes": tensor.bytes,
                "entropy_bytes": tensor.entropy_bytes,
                "bits_per_weight": tensor.bits_per_weight,
            }
            for tensor in contents.tensors
        ],
    }


def _tensors(contents: ArchiveContents) -> Table:
    table = narrow_table("tensor", "shape", "dtype", "form", "bytes", "bound", "bits", title="Archive")
    for tensor in contents.tensors:
        table.add_row(
            printable(tensor.name),
            " x ".join(map(str, tensor.shape)) or "scalar",
            str(tensor.dtype).removeprefix("torch."),
            tensor.form,
            f"{tensor.bytes:,.0f}",
            f"{tensor.entropy_bytes:,.0f}",
            f"{tensor.bits_per_weight:.2f}",
        )
    if contents.record_bytes:
        table.add_row("tensors in the records", "", "", "", f"{contents.record_bytes:,.0f}", "", "")
    count = sum(tensor.count for tensor in contents.tensors if tensor.form != "tied")
    bits = 8 * contents.file_bytes / count if count else 0.0
    table.add_section()
    table.add_row(
        "file", "", "", "", f"{contents.file_bytes:,}", f"{contents.entropy_bytes:,.0f}", f"{bits:.2f}", style="bold"
    )
    table.caption = (
        f"{contents.dense_bytes:,} bytes in memory, {contents.ratio:.1f} times the file; bound: the entropy in bytes; "
        "bits: per weight"
    )
    table.caption_justify = "left"
    return table


def _records(contents: ArchiveContents) -> Table:
    """Single values, and the numbers of entries of larger ones."""
    table = pairs_table("record", "content", title="Records")
    table.add_row("the state dict alone", "is the model" if contents.complete else "is not the model")
    for name, content in described(contents.records):
        table.add_row(printable(name), printable(content))
    return table


def described(records: dict[str, Any], depth: int = 3, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and text of each value in nested records, of large ones the number of entries.

    >>> dict(described({"a": {"b": 1, "c": [1, 2]}}))
    {'a.b': '1', 'a.c': '2 entries'}
    """
    for key, value in records.items():
        if isinstance(value, dict) and value and depth > 1:
            yield from described(value, depth - 1, f"{prefix}{key}.")
        elif isinstance(value, dict | list | tuple):
            yield f"{prefix}{key}", f"{len(value)} entries"
        else:
            yield f"{prefix}{key}", "a tensor" if isinstance(value, ArchivedTensor) else _REPR.repr(value)
