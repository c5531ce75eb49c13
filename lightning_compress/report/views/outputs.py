"""Outputs: the report in files and in a terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.measure import Measurement
from rich.text import Text

from lightning_compress.drafts import draft_of
from lightning_compress.report.comparisons import Comparison, remarks
from lightning_compress.report.headlines import KINDS, headlines, kind_of
from lightning_compress.report.pages.html import page
from lightning_compress.report.pictures import drawable
from lightning_compress.report.pictures.styles import save
from lightning_compress.report.views.tables import Table, as_dict, markdown, rich_table, tables

__all__ = ["PICTURES", "show", "write"]

PICTURES = "pictures"
"""Folder of the pictures beside the report."""

_SPARE = {
    "Layers": ("shape", "distinct", "state dict", "parameters", "non-zero"),
    "Deployment": ("mean difference", "integer layers", "bytes", "same class"),
}
"""Title of a table -> columns that a narrow terminal does without, the first to go first."""
_ANY = 10_000  # columns: more than any table has


def write(comparison: Comparison, directory: Path) -> list[str]:
    """Write ``report.md``, ``.json`` and ``.html`` and, if matplotlib is installed, pictures; returns their names."""
    try:
        figures = drawable(comparison)
    except ImportError:
        figures = {}
    pages = {
        "report.md": markdown(comparison),
        "report.json": json.dumps(as_dict(comparison), indent=2, default=str),
        "report.html": page(comparison, figures),
    }
    for name, text in pages.items():
        with draft_of(directory / name) as draft:
            draft.write_text(text, encoding="utf-8")
    if figures:
        with draft_of(directory / PICTURES) as draft:
            draft.mkdir()
            for name, figure in figures.items():
                save(figure, draft / name)
    return [*pages, *([f"{PICTURES}/*.png"] if figures else [])]


def show(comparison: Comparison) -> None:
    """Print headlines and tables: drawn in a terminal, as Markdown elsewhere; layers of large models are grouped."""
    console = Console()
    if not console.is_terminal:
        print(markdown(comparison, grouped=True))
        return
    for line in headlines(comparison):
        console.print(Text(line, style=KINDS.get(kind_of(line), "")), highlight=False)
    for table in tables(comparison, grouped=True):
        drawn = rich_table(_narrowed(table, console))
        # A terminal wraps lines that are too long; rich would shorten the numbers.
        least = Measurement.get(console, console.options.update(width=_ANY), drawn).minimum
        Console(width=max(console.width, least)).print(drawn)
        if table.title == "Model":
            console.print(*(f"- {remark}" for remark in remarks(comparison)), sep="\n", highlight=False, markup=False)


def _narrowed(table: Table, console: Console) -> Table:
    """A table with the columns that a terminal has room for; the files have all of them."""
    for head in _SPARE.get(table.title, ()):
        if Measurement.get(console, console.options.update(width=_ANY), rich_table(table)).maximum <= console.width:
            break
        kept = [index for index, name in enumerate(table.heads) if name != head]
        rows = tuple(tuple(row[index] for index in kept) for row in table.rows)
        table = replace(table, heads=tuple(table.heads[index] for index in kept), rows=rows)
    return table
