"""Archives in a terminal: their tensors and records."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_compress.archive import ArchiveContents, ArchivedTensor, inspect_archive

__all__ = ["contents_table", "printable", "records_table", "show_archive"]


def show_archive(path: Path) -> None:
    """Print the tensors and the records of an archive.

    Raises:
        ArchiveError: the file is no archive, or damaged.
        OSError: the file cannot be read.
    """
    contents = inspect_archive(path)
    # A pipe has no width; names must not be shortened there.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(contents_table(contents))
    if contents.records:
        console.print(records_table(contents))


def contents_table(contents: ArchiveContents) -> Table:
    """The tensors of an archive, one by one and in total."""
    table = Table("tensor", "shape", "dtype", "form", title="Archive", title_justify="left")
    for column in ("bytes", "entropy bound", "bits per weight"):
        table.add_column(column, justify="right")
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
    table.caption = f"{contents.dense_bytes:,} bytes in memory, {contents.ratio:.1f} times the file"
    table.caption_justify = "left"
    return table


def records_table(contents: ArchiveContents) -> Table:
    """The records of an archive: single values, and the numbers of entries of larger ones."""
    table = Table("record", "content", title="Records", title_justify="left")
    table.add_row("the state dict alone", "is the model" if contents.complete else "is not the model")
    for name, content in _described(contents.records):
        table.add_row(printable(name), printable(content))
    return table


def _described(records: dict[str, Any], depth: int = 3, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in records.items():
        if isinstance(value, dict) and value and depth > 1:
            yield from _described(value, depth - 1, f"{prefix}{key}.")
        elif isinstance(value, dict | list | tuple):
            yield f"{prefix}{key}", f"{len(value)} entries"
        else:
            yield f"{prefix}{key}", "a tensor" if isinstance(value, ArchivedTensor) else reprlib.repr(value)


def printable(name: str) -> Text:
    r"""Text that a terminal shows as it is: no markup of rich, and no control characters.

    >>> printable("[red]a\x1b[2J[/red]").plain
    '[red]a\\x1b[2J[/red]'
    """
    return Text("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name))
