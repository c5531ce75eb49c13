"""Modules of other packages, each with each method: ``python -m benchmarks.ecosystem [part of a name ...]``.

Every cell is one short fit on CPU. It *works* if the promise holds when the weights are counted, a fresh module that
loads the last checkpoint computes the same outputs, a run resumed after each epoch ends with the same weights bit for
bit, and the module is exported: as ``.lcz``, and after methods that change the computation as ``.onnx``, unless torch
itself cannot write the dense module. It is *refused* if a
``ValueError`` or ``TypeError`` that names a layer or an argument ends it before the first step. All else is a *FAULT*.
A percentage is the fraction of the weights that the method compresses, where it leaves some alone, by name in its plan.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import warnings
from pathlib import Path

from benchmarks.ecosystem.cells import Cell, Subject, cell
from benchmarks.ecosystem.methods import METHODS
from benchmarks.ecosystem.modules import MODULES
from benchmarks.ecosystem.networks import NETWORKS
from benchmarks.tables import quiet, show


def main(*wanted: str) -> None:
    """Print the table of the packages that are installed, or of those with a part of their names in ``wanted``."""
    quiet()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    rows: dict[str, dict[str, Cell]] = {}
    missing = []
    for name, make in (MODULES | NETWORKS).items():
        if wanted and not any(part in name for part in wanted):
            continue
        try:
            subject = make()
        except ImportError as error:
            missing.append(f"{name} ({error.name or error})")
            continue
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = _row(name, subject, Path(folder))
    _show(rows)
    if missing:
        print(f"Not installed, and left out: {'; '.join(missing)}.")


def _row(name: str, subject: Subject, folder: Path) -> dict[str, Cell]:
    row = {}
    for title, method in METHODS.items():
        row[title] = cell(subject, method, folder / title.replace("/", "-"))
        print(f"{name}: {title}: {row[title].verdict} {row[title].note}", file=sys.stderr, flush=True)
    return row


def _show(rows: dict[str, dict[str, Cell]]) -> None:
    """The table, with the messages below it, each once."""
    messages: dict[str, int] = {}
    table = []
    for name, row in rows.items():
        table.append([name, *(_text(cell, messages) for cell in row.values())])
    show("Modules of other packages", ["module", *METHODS], table)
    for message, number in messages.items():
        print(f"{number}. {message}")
    cells_ = [cell for row in rows.values() for cell in row.values()]
    counts = {verdict: sum(cell.verdict == verdict for cell in cells_) for verdict in ("works", "refused", "FAULT")}
    print("\n" + ", ".join(f"{count} {verdict}" for verdict, count in counts.items()) + f", of {len(cells_)}.")


def _text(cell: Cell, messages: dict[str, int]) -> str:
    if cell.verdict == "works":
        return f"works, {cell.note}" if cell.note else "works"
    return f"{cell.verdict} ({messages.setdefault(cell.note, len(messages) + 1)})"


if __name__ == "__main__":
    main(*sys.argv[1:])
