"""Widths: tables that fit a terminal. Names become shorter, then columns go; numbers stay whole."""

from __future__ import annotations

from dataclasses import replace

from rich.cells import cell_len
from rich.table import Table as RichTable

from lightning_compress.messages import shortened
from lightning_compress.report.views.tables import Table, rich_table

__all__ = ["fitted"]

_SPARE = {
    "Model": ("ratio",),
    "Layers": ("shape", "distinct", "state dict", "parameters", "non-zero", "MACs", "bits", "zeros"),
    "Deployment": ("mean difference", "integer layers", "bytes", "same class", "inputs"),
}
"""Title of a table -> columns that a narrow terminal does without, the first to go first."""
_WHOLE = ("Layers", "Deployment")  # titles of tables whose cells stay on one line, while there are columns to spare
_NAME = 24  # letters of a name that a narrow terminal shows at least


def fitted(table: Table, width: int) -> tuple[RichTable, list[str]]:
    """A table that fits a terminal, and the heads of the columns that it has no room for.

    Args:
        table: the table; the names in its first column are shortened.
        width: of the terminal, in columns.
    """
    dropped = []
    for head in _SPARE.get(table.title, ()):
        if _width(_with_short_names(table, _NAME)) <= width:
            break
        if head in table.heads:
            table = _without(table, head)
            dropped.append(head)
    longest = max((len(word) for row in table.rows for word in row[0].split()), default=0)
    table = _with_short_names(table, max(_NAME, longest - max(0, _width(table) - width)))
    drawn = rich_table(table)
    for column, room in zip(drawn.columns, _spread(*_ranges(table), width), strict=True):
        column.width = room  # rich would cut the last columns off
    return drawn, dropped


def _ranges(table: Table) -> tuple[list[int], list[int]]:
    """Letters of the longest word, and of the longest cell, of each column."""
    least = [column.min_width or 0 for column in rich_table(table).columns]
    most = [max(map(cell_len, cells)) for cells in zip(table.heads, *table.rows, strict=True)]
    return least, [max(pair) for pair in zip(least, most, strict=True)]


def _spread(least: list[int], most: list[int], width: int) -> list[int]:
    """The room of each column: its longest word, and a share of what is left."""
    found = list(least)
    spare = max(0, width - sum(least) - _frame(least))
    needs = sorted(range(len(least)), key=lambda index: most[index] - least[index])
    for rank, index in enumerate(needs):
        share = min(most[index] - least[index], spare // (len(needs) - rank))
        found[index] += share
        spare -= share
    return found


def _width(table: Table) -> int:
    least, most = _ranges(table)
    columns = most if table.title in _WHOLE else least
    return sum(columns) + _frame(columns)


def _frame(columns: list[int]) -> int:
    return 3 * len(columns) + 1  # blanks around every cell, and between


def _with_short_names(table: Table, most: int) -> Table:
    rows = tuple((" ".join(shortened(word, most) for word in row[0].split(" ")), *row[1:]) for row in table.rows)
    return replace(table, rows=rows)


def _without(table: Table, head: str) -> Table:
    kept = [index for index, name in enumerate(table.heads) if name != head]
    rows = tuple(tuple(row[index] for index in kept) for row in table.rows)
    return replace(table, heads=tuple(table.heads[index] for index in kept), rows=rows)
