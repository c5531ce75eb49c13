"""Tables as text of a limited width, and the short form of their numbers."""

from __future__ import annotations

from lightning_compress.messages import WIDTH, shortened
from lightning_compress.report.views.layers import Table

__all__ = ["as_text", "brief"]

_LEAST = 12  # characters of the first column


def as_text(table: Table) -> str:
    """Lines of at most 80 characters.

    The first column stands to the left, and is shortened if need be; columns without an entry are left out.

    >>> print(as_text(Table("", ("number", "square", "none"), (("2", "4", ""), ("12", "144", "")))))
    number  square
    2            4
    12         144
    """
    first, *others = zip(table.heads, *table.rows, strict=True)
    filled = [column for column in others if any(column[1:])]
    widths = [max(map(len, column)) for column in filled]
    room = max(_LEAST, WIDTH - sum(widths) - 2 * len(filled))
    names = [shortened(name, room) for name in first]
    longest = max(map(len, names))
    lines = []
    for number, name in enumerate(names):
        cells = [column[number].rjust(width) for column, width in zip(filled, widths, strict=True)]
        lines.append("  ".join([name.ljust(longest), *cells]).rstrip())
    return "\n".join(lines)


def brief(number: int) -> str:
    """A count in at most seven characters.

    >>> [brief(n) for n in (0, 12_345, 1_234_567, 23_000_000_000)]
    ['0', '12,345', '1.23M', '23G']
    """
    if number < 100_000:
        return f"{number:,}"
    for unit, size in (("k", 1e3), ("M", 1e6), ("G", 1e9)):
        if number < 1000 * size:
            return f"{number / size:.3g}{unit}"
    return f"{number / 1e12:.3g}T"
