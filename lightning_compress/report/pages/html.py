"""HTML: a report as one page that needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from lightning_compress.messages import plain
from lightning_compress.report.comparisons import Comparison, remarks
from lightning_compress.report.headlines import direction, headlines, is_worse, kind_of
from lightning_compress.report.pages.snippets import loading_code
from lightning_compress.report.pictures.styles import svg_of
from lightning_compress.report.views.tables import tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Card", "cards", "page"]

_METRICS = 2  # cards of metrics


@dataclass(frozen=True)
class Card:
    """One total.

    Attributes:
        name: its name.
        now: the number after.
        was: the number before, in words.
        change: the ratio.
        kind: ``"good"``, ``"bad"`` or nothing, for the color of the change.
    """

    name: str
    now: str
    was: str = ""
    change: str = ""
    kind: str = ""


def page(comparison: Comparison, figures: Mapping[str, Figure] | None = None) -> str:
    """The report as HTML. Names of layers, metrics and methods are escaped.

    Args:
        comparison: the comparison.
        figures: name -> picture; they become part of the page.
    """
    environment = Environment(
        loader=PackageLoader("lightning_compress.report", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalized,
    )
    methods = [str(report["method"]) for report in comparison.methods.values() if report.get("method")]
    kinds = [(kind_of(line), line) for line in headlines(comparison)]
    return environment.get_template("report.html.jinja").render(
        subtitle="; ".join([*methods, f"{comparison.steps:,} optimizer steps"]),
        headlines=[(kind, line.removeprefix(f"{kind}: ") if kind else line) for kind, line in kinds],
        cards=cards(comparison),
        # The text of a figure is escaped by matplotlib.
        pictures={name: Markup(svg_of(figure, name)) for name, figure in (figures or {}).items()},  # noqa: S704
        tables=tables(comparison),
        remarks=remarks(comparison),
        files=[
            {"name": name, "bytes": f"{size:,} bytes", "code": loading_code(name)}
            for name, size in comparison.files.items()
        ],
        configuration=comparison.configuration,
        versions=comparison.versions,
    )


def cards(comparison: Comparison) -> list[Card]:
    """The totals that changed, and metrics."""
    before, after = comparison.before, comparison.after
    found = [_count("archive, bytes", before.archive_bytes, after.archive_bytes, "smaller")]
    if after.parameters != before.parameters:
        found.append(_count("parameters", before.parameters, after.parameters, "fewer"))
    if comparison.pruned:
        found.append(Card("zeros", f"{after.sparsity:.1%}", f"from {before.sparsity:.1%}"))
    if before.macs and after.macs and after.macs.total != before.macs.total:
        found.append(_count("MACs", before.macs.total, after.macs.total, "fewer"))
    return [*found, *_latency(comparison), *_metrics(comparison)]


def _count(name: str, before: int, after: int, word: str) -> Card:
    if not 0 < after < before:
        return Card(name, f"{after:,}", f"from {before:,}")
    return Card(name, f"{after:,}", f"from {before:,}", f"{before / after:.1f}x {word}", "good")


def _latency(comparison: Comparison) -> list[Card]:
    if comparison.shipped is None:
        return []
    place, (before, after) = comparison.shipped
    numbers = f"{1e3 * after.median:.3g} ms", f"from {1e3 * before.median:.3g} ms"
    if not after.differs(before):
        return [Card(place, *numbers, "no difference")]
    faster = after.median < before.median
    ratio = before.ratio(after) if faster else after.ratio(before)
    return [Card(place, *numbers, f"{ratio:.2f}x {'faster' if faster else 'slower'}", "good" if faster else "bad")]


def _metrics(comparison: Comparison) -> list[Card]:
    known = [name for name in comparison.metrics_after if direction(name, comparison.modes)]
    known.sort(key=lambda name: name not in comparison.modes)
    found = []
    for name in known[:_METRICS]:
        now, old = comparison.metrics_after[name], comparison.metrics_before.get(name)
        if old is None:
            found.append(Card(name, f"{now:.4f}"))
        else:
            kind = "bad" if is_worse(name, old, now, comparison.modes) or now != now else "good"
            found.append(Card(name, f"{now:.4f}", f"from {old:.4f}", f"{now - old:+.4f}", kind))
    return found


def _finalized(value: Any) -> Any:
    """Text without control characters; line breaks stay."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "\n".join(map(plain, value.split("\n")))
