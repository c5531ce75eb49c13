"""Tables: a comparison for a terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich import box
from rich.table import Table as RichTable

from lightning_compress.report.comparisons import Comparison, remarks
from lightning_compress.report.profile import Cost, LayerProfile

__all__ = ["Table", "as_dict", "markdown", "rich_table", "tables"]


@dataclass(frozen=True)
class Table:
    """A title, the heads of the columns and rows of cells, all of them text."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(comparison: Comparison) -> list[Table]:
    """The model as a whole, its layers, and what the methods say about themselves."""
    methods = tuple(
        (name, key, _value(value)) for name, report in comparison.methods.items() for key, value in report.items()
    )
    whole = Table("Model", ("", "before", "after", "ratio"), (*_sizes(comparison), *_costs(comparison)))
    return [whole, _layers(comparison), *([Table("Methods", ("callback", "", "value"), methods)] if methods else [])]


def rich_table(table: Table) -> RichTable:
    """For ``rich.print``: the first column to the left, numbers to the right."""
    drawn = RichTable(title=table.title, box=box.SIMPLE_HEAD, title_justify="left")
    for index, head in enumerate(table.heads):
        drawn.add_column(head, justify="right" if index and table.title != "Methods" else "left")
    for row in table.rows:
        drawn.add_row(*row)
    return drawn


def markdown(comparison: Comparison) -> str:
    """The whole report as a Markdown page."""
    parts = ["# Compression report"]
    for table in tables(comparison):
        rule = ["---", *["---" if table.title == "Methods" else "---:"] * (len(table.heads) - 1)]
        lines = [_line(table.heads), _line(rule), *map(_line, table.rows)]
        parts += [f"## {table.title}", "\n".join(lines)]
        if table.title == "Model":
            parts += [f"- {remark}" for remark in remarks(comparison)]
    return "\n\n".join(parts) + "\n"


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Everything as numbers and text, for ``json.dumps``."""
    totals = {
        name: {"parameters": model.parameters, "nonzeros": model.nonzeros, "sparsity": model.sparsity}
        for name, model in (("before", comparison.before), ("after", comparison.after))
    }
    return {**asdict(comparison), "totals": totals, "remarks": remarks(comparison)}


def _sizes(comparison: Comparison) -> list[tuple[str, ...]]:
    before, after = comparison.before, comparison.after
    return [
        ("parameters", *_numbers(before.parameters, after.parameters)),
        ("non-zero parameters", *_numbers(before.nonzeros, after.nonzeros)),
        ("zeros", f"{before.sparsity:.2%}", f"{after.sparsity:.2%}", ""),
        ("state dict, bytes", *_numbers(before.state_bytes, after.state_bytes)),
        ("archive (.lcz), bytes", *_numbers(before.archive_bytes, after.archive_bytes)),
    ]


def _costs(comparison: Comparison) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    if comparison.costs:
        before, after = comparison.costs
        rows += [
            (f"MACs, input {after.inputs}", *_numbers(before.macs, after.macs)),
            (f"latency on {after.device}, ms", _milliseconds(before), _milliseconds(after), _speedup(before, after)),
        ]
    else:
        rows += [(name, comparison.uncosted, comparison.uncosted, "") for name in ("MACs", "latency")]
    for name in comparison.metrics_before | comparison.metrics_after:  # type: ignore[operator]
        values = (metrics.get(name) for metrics in (comparison.metrics_before, comparison.metrics_after))
        rows.append((name, *("" if value is None else f"{value:.4f}" for value in values), ""))
    return rows


def _layers(comparison: Comparison) -> Table:
    heads = ("parameter", "shape", "parameters", "non-zero", "zeros", "distinct", "state dict", "archive", "MACs")
    macs = [cost.layer_macs if cost else {} for cost in (comparison.before.cost, comparison.after.cost)]
    counted: set[str] = set()
    rows = []
    for before, after in comparison.layers:
        name = (after or before).name  # type: ignore[union-attr]
        holder = name.rpartition(".")[0]
        first, counted = holder not in counted, counted | {holder}  # a layer's MACs stand on its first row
        rows.append(
            (
                name,
                _change(before, after, lambda layer: " x ".join(map(str, layer.shape)) or "scalar"),
                _change(before, after, lambda layer: f"{layer.parameters:,}"),
                _change(before, after, lambda layer: f"{layer.nonzeros:,}"),
                _change(before, after, lambda layer: f"{1 - layer.nonzeros / max(1, layer.parameters):.1%}"),
                _change(before, after, lambda layer: f"{layer.distinct:,}"),
                _change(before, after, lambda layer: f"{layer.state_bytes:,}"),
                _change(before, after, lambda layer: f"{layer.archive_bytes:,}"),
                _arrow(*(f"{of[holder]:,}" if first and holder in of else "" for of in macs)),
            )
        )
    return Table("Layers", heads, (*rows, _total(comparison)))


def _total(comparison: Comparison) -> tuple[str, ...]:
    before, after = comparison.before, comparison.after
    macs = [f"{cost.macs:,}" for cost in comparison.costs] if comparison.costs else ["", ""]
    return (
        "total, with buffers",
        "",
        _arrow(f"{before.parameters:,}", f"{after.parameters:,}"),
        _arrow(f"{before.nonzeros:,}", f"{after.nonzeros:,}"),
        _arrow(f"{before.sparsity:.1%}", f"{after.sparsity:.1%}"),
        "",
        _arrow(f"{before.state_bytes:,}", f"{after.state_bytes:,}"),
        _arrow(f"{before.archive_bytes:,}", f"{after.archive_bytes:,}"),
        _arrow(*macs),
    )


def _change(before: LayerProfile | None, after: LayerProfile | None, show: Callable[[LayerProfile], str]) -> str:
    return _arrow(*("none" if layer is None else show(layer) for layer in (before, after)))


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} → {after}"


def _numbers(before: int, after: int) -> tuple[str, str, str]:
    ratio = "" if before == after or not after else f"{before / after:.2f}x fewer"
    return f"{before:,}", f"{after:,}", ratio


def _milliseconds(cost: Cost) -> str:
    return f"{1e3 * cost.latency:.3f} ± {500 * cost.spread:.3f}"


def _speedup(before: Cost, after: Cost) -> str:
    if abs(before.latency - after.latency) <= before.spread + after.spread:
        return "within spread"
    ratio = before.latency / after.latency
    return f"{ratio:.2f}x faster" if ratio > 1 else f"{1 / ratio:.2f}x slower"


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
