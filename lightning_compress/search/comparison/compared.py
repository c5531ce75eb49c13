"""Compared runs: size, latency and metric of many reports, side by side."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from lightning_compress.messages import wrapped
from lightning_compress.report.views.layers import Table
from lightning_compress.report.views.notebooks import frame, table_html
from lightning_compress.search.comparison.plots import Point, draw
from lightning_compress.search.views.tables import as_text
from lightning_compress.timing import Latency

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["ComparedRun", "ComparedRuns"]


@dataclass(frozen=True)
class ComparedRun:
    """One run.

    Attributes:
        name: its folder, without the part that all runs have in common.
        path: its ``report.json``.
        methods: the callbacks that compressed it, each with its method in words.
        bytes: size of its file; None if it was not written.
        dense_bytes: size of the archive of its dense model; None if the compared file is no archive.
        sparsity: fraction of zeros among all parameters.
        metric: that of the last validation; None if it was not finite, or if no run has one.
        unvalidated: optimizer steps after the last validation; the metric is that of an earlier model if there are any.
        changed: whether that validation saw other weights than those after ``fit``: the metric is another model's.
        latencies: of the dense and of the compressed model, in turns; None if they were not measured.
        measured_in: the place of the latencies: ``"PyTorch on cpu"``, ``"model.onnx in ONNX Runtime"``.
        front: whether no other run is as good in bytes and metric, and better in one.
    """

    name: str
    path: str
    methods: tuple[str, ...]
    bytes: int | None
    dense_bytes: int | None
    sparsity: float
    metric: float | None
    unvalidated: int
    changed: bool
    latencies: tuple[Latency, Latency] | None
    measured_in: str
    front: bool


@dataclass(frozen=True)
class ComparedRuns:
    """Many runs, the smallest file first; the result of :func:`compare`.

    Attributes:
        runs: one for each report.
        metric: name of the metric; None if no run has one.
        mode: whether the metric is better when it is smaller (``"min"``) or larger (``"max"``).
        suffix: that of the files whose bytes are compared.
    """

    runs: tuple[ComparedRun, ...]
    metric: str | None
    mode: Literal["min", "max"] | None
    suffix: str

    @property
    def front(self) -> tuple[ComparedRun, ...]:
        """The runs on the Pareto front, the smallest file first."""
        return tuple(run for run in self.runs if run.front)

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers and text, for ``json.dumps``."""
        return asdict(self)

    def to_json(self) -> str:
        """The same as a text in JSON."""
        return json.dumps(self.to_dict(), indent=2)

    def to_pandas(self) -> DataFrame:
        """One row for each run.

        Raises:
            ImportError: pandas is not installed.
        """
        return frame(map(asdict, self.runs))

    def draw(self) -> Figure:
        """The metric against the bytes, with the Pareto front.

        Raises:
            ImportError: matplotlib is not installed (extra ``plots``).
            ValueError: no run has both.
        """
        points = [
            Point(str(number), run.bytes, run.metric, run.front)
            for number, run in enumerate(self.runs, 1)
            if run.bytes is not None and run.metric is not None
        ]
        if self.metric is None or not points:
            raise ValueError(f"need runs with a metric and a {self.suffix} file to draw, got none")
        return draw(points, self.metric)

    def __str__(self) -> str:
        return "\n\n".join([self._headline(), as_text(self._table()), self._legend()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return table_html(self._table(), [self._legend()])

    def _headline(self) -> str:
        runs = f"{len(self.runs)} run{'s' if len(self.runs) > 1 else ''}, {self.suffix} files"
        if self.metric is None:
            return f"{runs}, no metric"
        best = "smaller" if self.mode == "min" else "larger"
        return f"{runs}; * no other run has a {best} {self.metric} in as few bytes"

    def _legend(self) -> str:
        lines = [
            f"{number} {run.name}: {'; '.join(run.methods) or 'no method'}" for number, run in enumerate(self.runs, 1)
        ]
        lines += [
            f"LOSS: the last validation of {number} was {run.unvalidated:,} steps before the end of the run, so "
            f"{self.metric} is that of an earlier model than the one in the file."
            for number, run in enumerate(self.runs, 1)
            if run.unvalidated and run.metric is not None
        ]
        lines += [
            f"LOSS: the last validation of {number} saw other weights than those in the file, so {self.metric} is that "
            "of another model."
            for number, run in enumerate(self.runs, 1)
            if run.changed and not run.unvalidated and run.metric is not None
        ]
        places = sorted({run.measured_in for run in self.runs if run.latencies})
        if places:
            lines.append(f"Latency in {', '.join(places)}; each dense model was timed in turns with its own run.")
            lines += [
                f"{number} has no latency: its {self.suffix} file was not {'timed' if run.bytes else 'written'}."
                for number, run in enumerate(self.runs, 1)
                if not run.latencies and self.suffix != ".lcz"
            ]
        return "\n".join(map(wrapped, lines))

    def _table(self) -> Table:
        heads = ("run", "", "bytes", "smaller", "zeros", self.metric or "", "latency, ms", "faster")
        rows = (_row(number, run, self.metric is not None) for number, run in enumerate(self.runs, 1))
        return Table(self._headline(), heads, tuple(rows))


def _row(number: int, run: ComparedRun, metric: bool) -> tuple[str, ...]:
    smaller = f"{run.dense_bytes / run.bytes:.2f}x" if run.bytes and run.dense_bytes else ""
    return (
        f"{number} {run.name}",
        "*" if run.front else "",
        "not written" if run.bytes is None else f"{run.bytes:,}",
        smaller,
        f"{run.sparsity:.1%}",
        "not finite" if run.metric is None and metric else "" if run.metric is None else _number(run.metric),
        f"{1e3 * run.latencies[1].median:.3f}" if run.latencies else "",
        _faster(*run.latencies) if run.latencies else "",
    )


def _number(value: float) -> str:
    return f"{value:.4f}" if 1e-3 < abs(value) < 1e3 or value == 0 else f"{value:.4g}"


def _faster(before: Latency, after: Latency) -> str:
    ratio = before.ratio(after)
    return f"{ratio:.2f}x" if after.differs(before) and math.isfinite(ratio) else "same"
