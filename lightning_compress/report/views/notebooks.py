"""Notebooks: results as HTML, as data frames of pandas, and as short texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any

from lightning_compress.report.comparisons import Comparison, remarks
from lightning_compress.report.headlines import KINDS, headlines, kind_of
from lightning_compress.report.views.layers import Table
from lightning_compress.report.views.tables import tables

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["as_html", "as_text", "frame", "layer_frame", "table_html"]


def frame(rows: Iterable[Mapping[str, Any]]) -> DataFrame:
    """A data frame of rows.

    Raises:
        ImportError: pandas is not installed.
    """
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise ImportError("need pandas for a data frame, got none: pip install pandas") from error
    return DataFrame([dict(row) for row in rows])


def layer_frame(comparison: Comparison) -> DataFrame:
    """One row for each parameter tensor, with its numbers before and after.

    Raises:
        ImportError: pandas is not installed.
    """
    rows = []
    for pair in comparison.layers:
        row: dict[str, Any] = {"name": (pair[1] or pair[0]).name}  # type: ignore[union-attr]
        for side, layer in zip(("before", "after"), pair, strict=True):
            numbers = asdict(layer) | {"parameters": layer.parameters, "sparsity": layer.sparsity} if layer else {}
            row |= {f"{key}_{side}": value for key, value in numbers.items() if key != "name"}
        rows.append(row)
    return frame(rows)


def table_html(table: Table, texts: Sequence[str] = ()) -> str:
    """The title, paragraphs and the table; every text is escaped."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.heads)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    told = "".join(f"<pre>{escape(text)}</pre>" for text in texts)
    return (
        f"<p><b>{escape(table.title)}</b></p>{told}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def as_html(comparison: Comparison) -> str:
    """Headlines in color, the tables with layers grouped, and remarks."""
    lines = "".join(
        f'<div style="color:{KINDS.get(kind_of(line), "inherit")}">{escape(line)}</div>'
        for line in headlines(comparison)
    )
    told = "".join(f"<li>{escape(remark)}</li>" for remark in remarks(comparison))
    return lines + "".join(map(table_html, tables(comparison, grouped=True))) + f"<ul>{told}</ul>"


def as_text(comparison: Comparison) -> str:
    """The headlines, and where the rest is."""
    more = (
        f"the whole report is in {comparison.path.parent}" if comparison.path else "see to_dict(), to_pandas(), plot()"
    )
    return "\n".join([*headlines(comparison), more])
