"""Sensitivities: the metric with one layer alone compressed, for each method, and a second-order proxy beside it."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torchmetrics.functional import spearman_corrcoef

from lightning_compress.arguments import check_number
from lightning_compress.messages import wrapped
from lightning_compress.report.views.layers import Table
from lightning_compress.report.views.notebooks import frame, table_html
from lightning_compress.search.views.tables import as_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

__all__ = ["LayerSensitivity", "Sensitivity"]

_COLUMNS = 6  # of a table


@dataclass(frozen=True)
class LayerSensitivity:
    """One layer alone, compressed by one method.

    Attributes:
        layer: name of the weight.
        method: the callback as its call is written.
        label: its amount, ``"sparsity=0.9"``.
        metric: the metric with this layer compressed.
        drop: by how much the metric is worse than the dense one; negative if it is better.
        cost: the second-order proxy, ``1/2 sum F (w - P(w))^2``.
        first_order: the first-order term ``sum g (P(w) - w)`` with the mean gradient g of the same examples; it
            vanishes at a minimum, and is no part of the proxy.
        sparsity: fraction of zeros of the layer.
        archive_bytes: size of the layer as an archive of its own; of all parameters that lose channels with it.
    """

    layer: str
    method: str
    label: str
    metric: float
    drop: float
    cost: float
    first_order: float
    sparsity: float
    archive_bytes: int


@dataclass(frozen=True)
class Sensitivity:
    """Layer x method: metrics with one layer compressed at a time, and the proxy; the result of :func:`sensitivity`.

    Attributes:
        rows: one for each layer and method, in the order of the methods.
        dense: the metric of the module as it was.
        mode: whether a metric is better when it is smaller (``"min"``) or larger (``"max"``).
        examples: number of examples that the metric was measured on.
        fisher_examples: number of examples of the Fisher information.
    """

    rows: tuple[LayerSensitivity, ...]
    dense: float
    mode: Literal["min", "max"]
    examples: int
    fisher_examples: int

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the layers, in the order of the rows."""
        return tuple(dict.fromkeys(row.layer for row in self.rows))

    @property
    def methods(self) -> tuple[str, ...]:
        """The callbacks, in the order of the list."""
        return tuple(dict.fromkeys(row.method for row in self.rows))

    @property
    def rank_correlation(self) -> float:
        """Spearman's rank correlation of proxy and drop over all rows; NaN if it is not defined."""
        return _spearman(self.rows)

    @property
    def rank_correlations(self) -> dict[str, float]:
        """Method -> the rank correlation over its layers."""
        return {method: _spearman(self._of(method)) for method in self.methods}

    def row(self, layer: str, method: str) -> LayerSensitivity | None:
        """The row of a layer and a method; None if the method leaves the layer alone."""
        return next((row for row in self._of(method) if row.layer == layer), None)

    def choose(self, drop: float) -> dict[str, tuple[str, ...]]:
        """Method -> the layers that it makes smallest, among the methods whose drop on a layer alone is small enough.

        Drops of single layers do not add up: a choice is a start for ``fit``, not a promise.

        Args:
            drop: the largest drop of a layer alone.

        Raises:
            TypeError: ``drop`` is not a number.
        """
        check_number(drop=drop)
        fitting = sorted((row for row in self.rows if row.drop <= drop), key=lambda row: row.archive_bytes)
        chosen = {layer: next((row.method for row in fitting if row.layer == layer), None) for layer in self.layers}
        layers = {method: tuple(layer for layer in chosen if chosen[layer] == method) for method in self.methods}
        return {method: names for method, names in layers.items() if names}

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers and text, for ``json.dumps``; None for numbers that are not finite."""
        correlations = {method: _finite(value) for method, value in self.rank_correlations.items()}
        return {
            "dense": _finite(self.dense),
            "mode": self.mode,
            "examples": self.examples,
            "fisher_examples": self.fisher_examples,
            "rank_correlation": _finite(self.rank_correlation),
            "rank_correlations": correlations,
            "rows": [{name: _finite(value) for name, value in asdict(row).items()} for row in self.rows],
        }

    def to_csv(self) -> str:
        """The rows as comma-separated values, with a head."""
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(LayerSensitivity.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in self.rows)
        return text.getvalue()

    def to_pandas(self) -> DataFrame:
        """The rows as a data frame.

        Raises:
            ImportError: pandas is not installed.
        """
        return frame(map(asdict, self.rows))

    def draw(self) -> Figure:
        """A heat map of the drops, and one of the proxy.

        Raises:
            ImportError: matplotlib is not installed (extra ``plots``).
        """
        from lightning_compress.search.views.plots import draw

        return draw(self)

    def __str__(self) -> str:
        methods = self.methods
        numbers = range(len(methods))
        tables = [self._table(numbers[first : first + _COLUMNS]) for first in numbers[::_COLUMNS]]
        return "\n\n".join([self._headline(), self._legend(), *map(as_text, tables)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return table_html(self._table(range(len(self.methods))), [self._legend()])

    def _of(self, method: str) -> list[LayerSensitivity]:
        return [row for row in self.rows if row.method == method]

    def _headline(self) -> str:
        lines = [
            f"Drop of the metric with one layer compressed, {self.examples:,} examples, dense {self.dense:.4g}",
            f"Rank correlation with the second-order proxy: {_in_words(self.rank_correlation)}",
        ]
        if self.rows and all(row.drop == 0 for row in self.rows):
            lines.append("No method changes the metric: weights that are compressed already stay as they are")
        return "\n".join(lines)

    def _legend(self) -> str:
        return "\n".join(wrapped(f"{number} {method}") for number, method in enumerate(self.methods, 1))

    def _table(self, numbers: range) -> Table:
        chosen = [self.methods[number] for number in numbers]
        found = {(row.layer, row.method): row for row in self.rows}
        rows = [
            (layer, *(f"{found[layer, method].drop:.3g}" if (layer, method) in found else "" for method in chosen))
            for layer in self.layers
        ]
        correlations = self.rank_correlations
        last = ("rank correlation", *(_in_words(correlations[method]) for method in chosen))
        return Table(self._headline(), ("layer", *(str(number + 1) for number in numbers)), (*rows, last))


def _spearman(rows: Sequence[LayerSensitivity]) -> float:
    """Spearman's rank correlation of cost and drop, equal values at their mean rank; NaN where one does not vary."""
    costs, drops = (
        torch.tensor([getattr(row, name) for row in rows], dtype=torch.float64) for name in ("cost", "drop")
    )
    if (
        len(rows) < 2
        or costs.min() == costs.max()
        or drops.min() == drops.max()
        or not (costs + drops).isfinite().all()
    ):
        return math.nan
    return float(spearman_corrcoef(costs, drops))


def _in_words(correlation: float) -> str:
    return f"{correlation:.2f}" if math.isfinite(correlation) else "none"


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
