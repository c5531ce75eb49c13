"""Tables: a comparison for a terminal, as Markdown and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

from rich import box
from rich.table import Table as RichTable
from rich.text import Text

from lightning_compress.messages import plain
from lightning_compress.report.comparisons import Comparison, remarks
from lightning_compress.report.headlines import headlines
from lightning_compress.report.saved_reports import FORMAT
from lightning_compress.report.views.layers import Table, layer_table
from lightning_compress.report.views.stages import stages
from lightning_compress.timing import Latency

__all__ = ["Table", "as_dict", "markdown", "rich_table", "tables"]

_NUMBER = 24  # letters of the longest number; a longer word may be folded


def tables(comparison: Comparison, *, grouped: bool = False) -> list[Table]:
    """The whole model, its stages, the runtimes, the layers, and the reports of the methods.

    Args:
        comparison: the comparison.
        grouped: whether layers of a large model whose names differ in a number make one row.
    """
    methods = tuple(
        (name, key, _value(value)) for name, report in comparison.methods.items() for key, value in report.items()
    )
    rows = (*_sizes(comparison), *_costs(comparison), *_metrics(comparison))
    whole = Table("Model", ("", "before", "after", "ratio"), rows)
    told = [Table("Methods", ("callback", "", "value"), methods)] if methods else []
    found = [whole, *_stages(comparison), *_deployments(comparison), layer_table(comparison, grouped=grouped), *told]
    return [replace(one, rows=tuple(tuple(map(plain, row)) for row in one.rows)) for one in found]


def rich_table(table: Table) -> RichTable:
    """For ``rich.print``: the first column to the left, numbers to the right."""
    drawn = RichTable(title=table.title, box=box.SIMPLE_HEAD, title_justify="left")
    for index, (head, *cells) in enumerate(zip(table.heads, *table.rows, strict=True)):
        justify: Literal["left", "right"] = "right" if index and table.title != "Methods" else "left"
        longest = max((len(word) for cell in (head, *cells) for word in cell.split()), default=0)
        least = min(longest, _NUMBER) if index else longest
        drawn.add_column(head, justify=justify, min_width=least, overflow="fold")  # rich would shorten numbers
    for row in table.rows:
        drawn.add_row(*map(Text, row))  # names of layers are no markup
    return drawn


def markdown(comparison: Comparison, *, grouped: bool = False) -> str:
    """The whole report as a Markdown page; ``grouped`` as in :func:`tables`."""
    parts = ["# Compression report", "\n".join(f"- {line}" for line in headlines(comparison))]
    for table in tables(comparison, grouped=grouped):
        rule = ["---", *["---" if table.title == "Methods" else "---:"] * (len(table.heads) - 1)]
        lines = [_line(table.heads), _line(rule), *map(_line, table.rows)]
        parts += [f"## {table.title}", "\n".join(lines)]
        if table.title == "Model":
            parts += [f"- {remark}" for remark in remarks(comparison)]
    return "\n\n".join(parts) + "\n"


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Everything as numbers and text, for ``json.dumps``; None for NaN and infinities, which JSON does not have."""
    totals = {
        name: {"parameters": model.parameters, "nonzeros": model.nonzeros, "sparsity": model.sparsity}
        for name, model in (("before", comparison.before), ("after", comparison.after))
    }
    became = {stage.name: stage.bytes for stage in stages(comparison.before, comparison.after)}
    values = {name: value for name, value in asdict(comparison).items() if name != "path"}
    whole = {"format": FORMAT, **values, "totals": totals, "stages": became, "remarks": remarks(comparison)}
    whole["headlines"] = headlines(comparison)
    return {name: _finite(value) for name, value in whole.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _sizes(comparison: Comparison) -> list[tuple[str, ...]]:
    before, after = comparison.before, comparison.after
    zeros = [
        ("non-zero parameters", *_numbers(before.nonzeros, after.nonzeros)),
        ("zeros", f"{before.sparsity:.2%}", f"{after.sparsity:.2%}", ""),
    ]
    return [
        ("parameters", *_numbers(before.parameters, after.parameters)),
        *(zeros if comparison.pruned else []),
        ("state dict, bytes", *_numbers(before.state_bytes, after.state_bytes)),
        ("archive (.lcz), bytes", *_numbers(before.archive_bytes, after.archive_bytes)),
    ]


def _costs(comparison: Comparison) -> list[tuple[str, ...]]:
    reason = comparison.why_uncosted
    macs = comparison.before.macs, comparison.after.macs
    name = next((f"MACs, input {one.inputs}" for one in reversed(macs) if one), "MACs")
    counted = (name, *(f"{one.total:,}" if one else reason for one in macs), "")
    if macs[0] and macs[1]:
        counted = (name, *_numbers(macs[0].total, macs[1].total))
    timed = ("latency", reason, reason, "")
    if comparison.shipped:
        place, (before, after) = comparison.shipped
        timed = (f"latency of {place}, ms", _milliseconds(before), _milliseconds(after), _speed(before, after))
        timed = (timed[0].replace("latency of PyTorch", "latency in PyTorch"), *timed[1:])
    elif comparison.latencies:
        timed = ("latency", "", "not measured: PyTorch simulates the integers of the files; add .onnx to formats", "")
    return [counted, timed]


def _metrics(comparison: Comparison) -> list[tuple[str, ...]]:
    before, after = comparison.metrics_before, comparison.metrics_after
    shown = [{name: f"{value:.4f}" for name, value in metrics.items()} for metrics in (before, after)]
    return [(name, *(metrics.get(name, "") for metrics in shown), "") for name in {**before, **after}]


def _stages(comparison: Comparison) -> list[Table]:
    found = stages(comparison.before, comparison.after)
    dense = found[0].bytes
    rows = tuple((stage.name, f"{stage.bytes:,}", f"{dense / max(1, stage.bytes):.2f}x") for stage in found)
    return [Table("Stages", ("stored", "bytes", "smaller"), rows)] if len(found) > 1 else []


def _deployments(comparison: Comparison) -> list[Table]:
    heads = ("", "bytes", "integer layers", "inputs", "latency, ms", "", "same class", "mean difference")
    rows = []
    for found in comparison.deployments:
        integer = f"{found.integer} / {found.integer + len(found.floating)}"
        size = f"{found.dense_bytes:,} → {found.bytes:,}"
        agreement = "" if found.agreement is None else f"{found.agreement:.2%}"
        name, parity = f"{found.file} in {found.runtime}", (agreement, f"{found.difference:.2%}")
        memory = "" if found.memory is None else f"{found.memory:,} of memory"
        timed = [("", "") if pair is None else _timed(*pair) for pair in (found.latencies, found.batch_latencies)]
        rows.append((name, size, integer, "example", *timed[0], "", ""))
        rows.append(("", memory, "", f"{found.samples:,} samples", *timed[1], *parity))
    return [Table("Deployment", heads, tuple(rows))] if rows else []


def _numbers(before: int, after: int) -> tuple[str, str, str]:
    return f"{before:,}", f"{after:,}", _ratio(before, after)


def _ratio(before: int, after: int) -> str:
    if before == after or not before or not after:
        return ""
    return f"{before / after:.2f}x fewer" if after < before else f"{after / before:.2f}x more"


def _milliseconds(latency: Latency) -> str:
    return f"{1e3 * latency.median:.3f} ({1e3 * latency.lower:.3f}-{1e3 * latency.upper:.3f})"


def _timed(before: Latency, after: Latency) -> tuple[str, str]:
    return f"{1e3 * before.median:.3f} → {1e3 * after.median:.3f}", _speed(before, after)


def _speed(before: Latency, after: Latency) -> str:
    if not after.differs(before):
        return "no difference"
    ratio = before.ratio(after)
    return f"{ratio:.2f}x faster" if ratio > 1 else f"{1 / ratio:.2f}x slower"


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
