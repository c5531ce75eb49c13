"""Tables on standard output."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence

__all__ = ["quiet", "show"]


def quiet() -> None:
    """Let nothing but the tables be printed: no notes of the Trainer, one thread's warnings of data loading."""
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")


def show(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a Markdown table."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    print(f"\n{title}\n")
    for cells in (header, ["-" * width for width in widths], *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |")
    print(flush=True)
