"""Tables that fit a terminal: names and values of files as text, columns as narrow as they can be."""

from __future__ import annotations

import sys

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_compress.messages import plain

__all__ = ["narrow_table", "new_console", "pairs_table", "printable"]

_PIPE = 160  # columns where there is no terminal; names must not be shortened there


def new_console() -> Console:
    """A console for standard output."""
    return Console(width=None if sys.stdout.isatty() else _PIPE)


def narrow_table(first: str, *others: str, title: str | None = None) -> Table:
    """An empty table: its first column to the left and folded where it is long, the others to the right.

    >>> narrow_table("name", "bytes").columns[1].justify
    'right'
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    table.show_header = any((first, *others))
    return table


def pairs_table(name: str, content: str, *, title: str) -> Table:
    """An empty table of names and texts, which are folded where they are long."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(name, overflow="fold")
    table.add_column(content, overflow="fold")
    table.show_header = bool(name)
    return table


def printable(name: str) -> Text:
    r"""Text that a terminal shows as it is: no markup of rich, and no control characters.

    >>> printable("[red]a\x1b[2J[/red]").plain
    '[red]a\\x1b[2J[/red]'
    """
    return Text(plain(name))
