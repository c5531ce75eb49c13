"""Outputs: the report in files and in a terminal."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement

from lightning_compress.report.comparisons import Comparison, remarks
from lightning_compress.report.views.plots import draw
from lightning_compress.report.views.tables import as_dict, markdown, rich_table, tables

__all__ = ["show", "write"]

_ANY = 10_000  # columns: more than any table has


def write(comparison: Comparison, directory: Path) -> list[str]:
    """Write ``report.md``, ``report.json`` and, if matplotlib is installed, ``report.png``; returns their names."""
    (directory / "report.md").write_text(markdown(comparison), encoding="utf-8")
    (directory / "report.json").write_text(json.dumps(as_dict(comparison), indent=2, default=str), encoding="utf-8")
    written = ["report.md", "report.json"]
    try:
        draw(comparison).savefig(directory / "report.png", dpi=120)
    except ImportError:
        return written
    return [*written, "report.png"]


def show(comparison: Comparison) -> None:
    """Print the tables: drawn in a terminal, as Markdown elsewhere."""
    console = Console()
    if not console.is_terminal:
        print(markdown(comparison))
        return
    for table in tables(comparison):
        drawn = rich_table(table)
        # A terminal wraps lines that are too long; rich would shorten the numbers.
        least = Measurement.get(console, console.options.update(width=_ANY), drawn).minimum
        Console(width=max(console.width, least)).print(drawn)
        if table.title == "Model":
            console.print(*(f"- {remark}" for remark in remarks(comparison)), sep="\n", highlight=False)
