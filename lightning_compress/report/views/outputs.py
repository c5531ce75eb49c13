"""Outputs: the report in files and in a terminal."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement

from lightning_compress.drafts import draft_of
from lightning_compress.report.comparisons import Comparison, remarks
from lightning_compress.report.headlines import headlines
from lightning_compress.report.views.plots import draw
from lightning_compress.report.views.tables import as_dict, markdown, rich_table, tables

__all__ = ["show", "write"]

_ANY = 10_000  # columns: more than any table has


def write(comparison: Comparison, directory: Path) -> list[str]:
    """Write ``report.md``, ``report.json`` and, if matplotlib is installed, ``report.png``; returns their names."""
    pages = {
        "report.md": markdown(comparison),
        "report.json": json.dumps(as_dict(comparison), indent=2, default=str),
    }
    for name, page in pages.items():
        with draft_of(directory / name) as draft:
            draft.write_text(page, encoding="utf-8")
    try:
        picture = draw(comparison)
    except ImportError:
        return list(pages)
    with draft_of(directory / "report.png") as draft:
        picture.savefig(draft, dpi=120)
    return [*pages, "report.png"]


def show(comparison: Comparison) -> None:
    """Print the tables: drawn in a terminal, as Markdown elsewhere."""
    console = Console()
    if not console.is_terminal:
        print(markdown(comparison))
        return
    console.print(*headlines(comparison), sep="\n", highlight=False, markup=False)
    for table in tables(comparison):
        drawn = rich_table(table)
        # A terminal wraps lines that are too long; rich would shorten the numbers.
        least = Measurement.get(console, console.options.update(width=_ANY), drawn).minimum
        Console(width=max(console.width, least)).print(drawn)
        if table.title == "Model":
            console.print(*(f"- {remark}" for remark in remarks(comparison)), sep="\n", highlight=False, markup=False)
