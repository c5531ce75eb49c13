"""Lines of the tables: a peer, in a runtime where it has one, and its figures over the seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any, TypeAlias

from benchmarks.peers.environments import PEERS, Peer
from benchmarks.peers.worker import lines_of_user_code

__all__ = ["PRUNING", "QUANTIZATION", "Column", "Line", "Record", "ahead", "lines_of", "table"]

Record: TypeAlias = dict[str, Any]


@dataclass(frozen=True)
class Column:
    """One figure.

    Attributes:
        name: in the header.
        values: from the records of a line, one value for each seed.
        form: of the mean.
        better: 1 if more is better, -1 if less is.
    """

    name: str
    values: Callable[[Line], Sequence[float]]
    form: str = "{:.2f}"
    better: int = -1

    def cell(self, line: Line) -> str:
        """The mean, and in brackets the distance from the lowest to the highest accuracy."""
        values = self.values(line)
        spread = f" ({max(values) - min(values):.2f})" if self in _ACCURACIES and len(values) > 1 else ""
        return f"{self.form.format(mean(values))}{spread}" if values else ""


@dataclass(frozen=True)
class Line:
    """A peer in a runtime.

    Attributes:
        peer: the peer.
        records: of its jobs.
        runtime: the name of the runtime of its file, if it writes one.
        error: the reason why there are no figures, or nothing.
    """

    peer: Peer
    records: Sequence[Record]
    runtime: str = ""
    error: str = ""

    @property
    def title(self) -> str:
        """The first cell."""
        return f"{self.peer.title}, {self.runtime}" if self.runtime else self.peer.title

    def named(self, name: str, sparsity: float | None = None) -> list[float]:
        """A figure of all records, or of the training runs at a sparsity; the dense network is at 0 for all."""
        level = 0.0 if self.peer.name == "dense" and sparsity is not None else sparsity
        fits = [one for one in self.records if sparsity is None or (one["kind"], one["sparsity"]) == ("train", level)]
        return [one[name] for one in fits if one.get(name) is not None]

    def in_runtime(self, name: str) -> list[float]:
        """A figure of the file in its runtime."""
        found = (one.get("runtimes", {}).get(self.runtime, {}).get(name) for one in self.records)
        return [value for value in found if value is not None]


def lines_of(records: Sequence[Record]) -> list[Line]:
    """All lines of a table, in the order of the peers."""
    return [line for peer in PEERS for line in _lines(peer, [one for one in records if _of(one) == _name(peer)])]


def _of(record: Record) -> tuple[str, str]:
    return record["row"], record["peer"]


def _name(peer: Peer) -> tuple[str, str]:
    return peer.row, peer.name


def _lines(peer: Peer, records: Sequence[Record]) -> Iterable[Line]:
    trained = [one for one in records if one["kind"] == "train" and "error" not in one]
    errors = [one["error"] for one in records if "error" in one]
    if not trained:
        yield from [Line(peer, records, error=errors[0])] if errors else []
    elif peer.row == "pruning":
        yield Line(peer, records)
    for runtime in dict.fromkeys(name for one in trained for name in one.get("runtimes", {})):
        failed = [one["runtimes"][runtime]["error"] for one in trained if "error" in one["runtimes"][runtime]]
        yield Line(peer, records, runtime, failed[0] if failed else "")


def _level(sparsity: float, name: str) -> Callable[[Line], Sequence[float]]:
    return lambda line: line.named(name, sparsity)


def _in_runtime(name: str) -> Callable[[Line], Sequence[float]]:
    return lambda line: line.in_runtime(name)


def _user_code(line: Line) -> Sequence[float]:
    counted = lines_of_user_code(line.peer.row, line.peer.name)
    return [counted] if counted else []


_STEP = Column("step", lambda line: line.named("step_ratio"))
_LINES = Column("lines", _user_code, "{:.0f}")
_RESUMED = Column("after resume", lambda line: line.named("resumed"), "{:.1%}", better=1)
PRUNING = (
    *(Column(f"accuracy at {100 * level:.0f} %", _level(level, "accuracy"), better=1) for level in (0.9, 0.95, 0.98)),
    Column("zeros", _level(0.95, "zeros"), "{:.3%}", better=1),
    Column("zstd", _level(0.95, "zstd"), "{:,.0f}"),
    Column(".lcz", _level(0.95, "lcz"), "{:,.0f}"),
    _STEP,
    _RESUMED,
    _LINES,
)
QUANTIZATION = (
    Column("accuracy", _in_runtime("accuracy"), better=1),
    Column("bytes", lambda line: line.named("bytes"), "{:,.0f}"),
    Column("latency, batch 1", _in_runtime("latency_1")),
    Column("batch 64", _in_runtime("latency_64")),
    _STEP,
    _LINES,
)
_ACCURACIES = (*PRUNING[:3], QUANTIZATION[0])
_OURS = {"OpenVINO": "ours_openvino"}
"""Runtime -> the peer of this package that the others are compared with, where it is another than ``ours``."""


def table(columns: Sequence[Column], lines: Sequence[Line]) -> str:
    """A Markdown table of the lines that have figures."""
    columns = [column for column in columns if any(column.cell(line) for line in lines if not line.error)]
    header, rule = ["", *(column.name for column in columns)], ["---", *("---:" for _ in columns)]
    rows = [[line.title, *(column.cell(line) for column in columns)] for line in lines if not line.error]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (header, rule, *rows))


def ahead(columns: Sequence[Column], lines: Sequence[Line]) -> str:
    """The sentence that names each peer that is ahead, in the figures as they are shown."""
    good = [line for line in lines if not line.error]
    ours = {line.runtime: line for line in good if line.peer.name == _OURS.get(line.runtime, "ours")}
    others = [line for line in good if line.runtime in ours and not line.peer.name.startswith(("ours", "dense"))]
    found = [
        f"{line.title} in *{column.name}*, {column.cell(line)} against {column.cell(ours[line.runtime])}"
        for line in others
        for column in columns
        if _is_ahead(column, line, ours[line.runtime])
    ]
    return f"Ahead of this package: {'; '.join(found) or 'none'}.\n" if ours else ""


def _is_ahead(column: Column, line: Line, ours: Line) -> bool:
    theirs, mine = column.values(line), column.values(ours)
    if not theirs or not mine or column.cell(line) == column.cell(ours):
        return False
    return column.better * (mean(theirs) - mean(mine)) > 0
