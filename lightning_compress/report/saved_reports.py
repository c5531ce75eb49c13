"""Saved reports: ``report.json`` of a run, read back."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_compress.arguments import check_count, check_file, check_number
from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.measures.deployments import Deployment
from lightning_compress.report.measures.histories import Moment
from lightning_compress.report.measures.profiles import ModelProfile
from lightning_compress.timing import Latency

__all__ = ["FORMAT", "NAME", "read_report"]

FORMAT = 1
"""Version of the form of ``report.json``; a form that earlier versions cannot read has the next number."""

NAME = "report.json"


def read_report(path: str | Path) -> Comparison:
    """Read the ``report.json`` of a run: the same object as the ``result`` of the report that wrote it.

    Args:
        path: the file. Metrics that were not finite are NaN.

    Raises:
        ValueError: the file is no report, is damaged, or was written by a later version of this package.
        OSError: the file cannot be read.
    """
    check_file(path=path)
    path = Path(path)
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"need a report as JSON, got {path}, which is damaged: {error}") from error
    form = values.get("format") if isinstance(values, dict) else None
    if isinstance(form, bool) or not isinstance(form, int):
        raise ValueError(f"need a report that CompressionReport wrote, got {path}, which has no number as its format")
    if form > FORMAT:
        raise ValueError(
            f"need a report of format {FORMAT}, got {path} of format {form}, which a later version wrote: pip install "
            "--upgrade lightning-compress"
        )
    try:
        return _report(path, values)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"need a whole report, got {path}, which is damaged: {reason}") from error


def _report(path: Path, values: dict[str, Any]) -> Comparison:
    check_count(least=0, **{f"bytes of {name}": size for name, size in values["files"].items()})
    before, after = (ModelProfile.from_dict(values[name]) for name in ("before", "after"))
    check_count(least=0, **{"archive_bytes": before.archive_bytes, "archive_bytes after": after.archive_bytes})
    unvalidated = values.get("unvalidated", 0)  # earlier versions did not count them
    check_count(least=0, unvalidated=unvalidated)
    return Comparison(
        before=before,
        after=after,
        latencies=_pair(values["latencies"]),
        uncosted=str(values.get("uncosted", "")),
        metrics_before=_numbers(values["metrics_before"]),
        metrics_after=_numbers(values["metrics_after"]),
        unvalidated=unvalidated,
        changed=bool(values.get("changed", False)),
        compared_with=str(values.get("compared_with", "")),
        modes={name: str(mode) for name, mode in values["modes"].items()},
        steps=values.get("steps", 0),
        files=values["files"],
        failures={name: str(error) for name, error in values["failures"].items()},
        methods={name: dict(report) for name, report in values["methods"].items()},
        deployments=tuple(map(_deployment, values["deployments"])),
        history=tuple(map(Moment.from_dict, values.get("history", ()))),
        configuration={name: str(call) for name, call in values.get("configuration", {}).items()},
        versions={name: str(version) for name, version in values.get("versions", {}).items()},
        path=path,
    )


def _deployment(values: Mapping[str, Any]) -> Deployment:
    pairs = {name: _pair(values[name]) for name in ("latencies", "batch_latencies")}
    return Deployment(**{**values, **pairs, "floating": tuple(values["floating"])})


def _numbers(metrics: Mapping[str, float | None]) -> dict[str, float]:
    check_number(**{name: value for name, value in metrics.items() if value is not None})
    return {name: math.nan if value is None else value for name, value in metrics.items()}


def _pair(latencies: list[dict[str, Any]] | None) -> tuple[Latency, Latency] | None:
    if not latencies:
        return None
    before, after = (Latency(**latency) for latency in latencies)
    check_number(before=before.median, after=after.median)
    return before, after
