"""Layers: the table of parameter tensors, each alone or grouped by the patterns of their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from lightning_compress.report.comparisons import FEW, Comparison
from lightning_compress.report.measures.profiles import LayerProfile

__all__ = ["Table", "layer_table"]

_MANY = 24  # layers that are grouped

_Layers = Sequence[LayerProfile]


@dataclass(frozen=True)
class Table:
    """A title, the heads of the columns and rows of cells, all text."""

    title: str
    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class _Column:
    """One column of the table.

    Attributes:
        head: its name.
        show: the cell of some layers.
        total: whether the last row has a cell.
    """

    head: str
    show: Callable[[_Layers], str]
    total: bool = True


def layer_table(comparison: Comparison, *, grouped: bool = False) -> Table:
    """One row for every parameter tensor before and after, and a total; columns that say nothing are left out.

    Args:
        comparison: the comparison.
        grouped: whether layers of a large model whose names differ in a number make one row.
    """
    groups = _grouped(comparison) if grouped else {_name(pair): [pair] for pair in comparison.layers}
    columns = _columns(comparison)
    macs = _macs(comparison)
    rows = []
    for name, pairs in groups.items():
        before, after = ([one for one in side if one] for side in zip(*pairs, strict=True))
        cells = [_arrow(*(column.show(side) if side else "none" for side in (before, after))) for column in columns]
        counted = [macs[_name(pair)] for pair in pairs if _name(pair) in macs]
        rows.append((name, *cells, _arrow(*_sums(counted)) if counted else ""))
    heads = ("parameter", *(column.head for column in columns), "MACs")
    return Table("Layers", heads, (*rows, _total(comparison, columns)))


def _columns(comparison: Comparison) -> list[_Column]:
    """The columns that say something: no zeros where there are none, no bits where all are those of the dtype."""
    zeros = any(layer and layer.sparsity > FEW for pair in comparison.layers for layer in pair)
    columns = [
        _Column("shape", lambda layers: _same(" x ".join(map(str, one.shape)) or "scalar" for one in layers), False),
        _Column("parameters", lambda layers: f"{sum(one.parameters for one in layers):,}"),
    ]
    if zeros:
        columns += [
            _Column("non-zero", lambda layers: f"{sum(one.nonzeros for one in layers):,}"),
            _Column("zeros", _sparsity),
        ]
    columns.append(_Column("distinct", lambda layers: _between([one.distinct for one in layers]), False))
    if comparison.quantized:
        columns.append(_Column("bits", lambda layers: _between([one.bits for one in layers]), False))
    return [
        *columns,
        _Column("state dict", lambda layers: f"{sum(one.state_bytes for one in layers):,}"),
        _Column("archive", lambda layers: f"{sum(one.archive_bytes for one in layers):,}"),
    ]


def _grouped(comparison: Comparison) -> dict[str, list[tuple[LayerProfile | None, LayerProfile | None]]]:
    """Pattern and number of its layers -> the layers; a small model has one group for each."""
    pairs = comparison.layers
    kinds: dict[str, list[tuple[LayerProfile | None, LayerProfile | None]]] = {}
    for pair in pairs:
        name = _name(pair)
        kinds.setdefault(re.sub(r"\d+", "*", name) if len(pairs) > _MANY else name, []).append(pair)
    return {f"{kind} ({len(same)})" if len(same) > 1 else _name(same[0]): same for kind, same in kinds.items()}


def _macs(comparison: Comparison) -> dict[str, tuple[int | None, int | None]]:
    """The first parameter of a layer -> multiply-accumulates of the layer before and after."""
    counts = [model.macs.layers if model.macs else None for model in (comparison.before, comparison.after)]
    known = set().union(*(layers for layers in counts if layers))
    found: dict[str, tuple[int | None, int | None]] = {}
    seen = set()
    for pair in comparison.layers:
        holder = _name(pair).rpartition(".")[0]
        if holder in known and holder not in seen:
            seen.add(holder)
            before, after = (None if layers is None else layers.get(holder, 0) for layers in counts)
            found[_name(pair)] = before, after
    return found


def _sums(counted: Sequence[tuple[int | None, int | None]]) -> tuple[str, str]:
    before, after = zip(*counted, strict=True)
    return _summed(before), _summed(after)


def _summed(counts: Iterable[int | None]) -> str:
    known = [count for count in counts if count is not None]
    return f"{sum(known):,}" if known else ""


def _total(comparison: Comparison, columns: Sequence[_Column]) -> tuple[str, ...]:
    before, after = comparison.before, comparison.after
    whole = {"state dict": lambda model: f"{model.state_bytes:,}", "archive": lambda model: f"{model.archive_bytes:,}"}
    cells = []
    for column in columns:
        show = whole.get(column.head, lambda model, column=column: column.show(model.layers) if model.layers else "0")
        cells.append(_arrow(show(before), show(after)) if column.total else "")
    macs = _arrow(*(f"{model.macs.total:,}" if model.macs else "" for model in (before, after)))
    return ("total, with buffers", *cells, macs)


def _name(pair: tuple[LayerProfile | None, LayerProfile | None]) -> str:
    return (pair[1] or pair[0]).name  # type: ignore[union-attr]


def _sparsity(layers: _Layers) -> str:
    parameters = sum(one.parameters for one in layers)
    return f"{1 - sum(one.nonzeros for one in layers) / parameters:.1%}" if parameters else "0.0%"


def _same(texts: Iterable[str]) -> str:
    found = list(dict.fromkeys(texts))
    return found[0] if len(found) == 1 else "various"


def _between(numbers: Sequence[int]) -> str:
    least, most = min(numbers), max(numbers)
    return f"{least:,}" if least == most else f"{least:,}-{most:,}"


def _arrow(before: str, after: str) -> str:
    """Both cells, or one if they are the same; a question mark stands for a number that was not measured."""
    return before if before == after else f"{before or '?'} → {after or '?'}"
