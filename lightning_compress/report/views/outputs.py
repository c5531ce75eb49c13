"""Outputs: the report in files and in a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text
from torch import nn

from lightning_compress.deploy import Writer, export
from lightning_compress.drafts import check_replaceable, draft_of
from lightning_compress.example_inputs import ExampleInput
from lightning_compress.report.comparisons import Comparison, remarks
from lightning_compress.report.headlines import KINDS, headlines, kind_of
from lightning_compress.report.pages.html import page
from lightning_compress.report.pictures import FILES, drawable
from lightning_compress.report.pictures.styles import save
from lightning_compress.report.views.tables import as_dict, markdown, tables
from lightning_compress.report.views.widths import fitted

__all__ = ["PICTURES", "check_places", "show", "write", "write_models"]

PICTURES = "pictures"
"""Folder of the pictures beside the report."""

_ANY = 10_000  # columns: more than any table has


def check_places(directory: Path, writers: Iterable[Writer]) -> None:
    """Refuse, before training, a folder in which something stands that the files of a report must not replace.

    Raises:
        OSError: other files stand where the pictures go, or a folder where a model goes.
    """
    check_replaceable(directory / PICTURES, FILES)
    for writer in writers:
        writer.check_place(directory / f"model{writer.suffix}")


def write_models(
    module: nn.Module, example: ExampleInput | None, writers: Iterable[Writer], directory: Path
) -> dict[str, Exception]:
    """Write the model in each format; file name -> error, which is raised when the report is written."""
    failures: dict[str, Exception] = {}
    for writer in writers:
        path = directory / f"model{writer.suffix}"
        try:
            export(module, path, example, writer=writer)
        except Exception as error:  # of any kind; the report names it
            failures[path.name] = error
    return failures


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
    console.print()
    for table in tables(comparison, grouped=True):
        drawn, dropped = fitted(table, console.width)
        Console(width=_ANY).print(drawn)  # a terminal that is narrower yet wraps lines; rich would shorten the numbers
        said = [f"- {remark}" for remark in remarks(comparison)] if table.title == "Model" else []
        if dropped:
            said.append(f"- The terminal has no room for the columns {', '.join(dropped)}: they are in the files.")
        if said:
            console.print(*said, "", sep="\n", highlight=False, markup=False)
