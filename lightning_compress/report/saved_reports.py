"""Saved reports: ``report.json`` of a run, read back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_compress.arguments import check_count, check_number
from lightning_compress.report.measures.profiles import ModelProfile
from lightning_compress.timing import Latency

__all__ = ["FORMAT", "NAME", "SavedReport", "read_report"]

FORMAT = 1
"""Version of the form of ``report.json``; a form that earlier versions cannot read has the next number."""

NAME = "report.json"


@dataclass(frozen=True)
class SavedReport:
    """The report of one run, as its file holds it.

    Attributes:
        path: the file.
        before: profile of the dense model.
        after: profile of the compressed model.
        metrics: those of the last validation; None for one that was NaN or infinite.
        unvalidated: optimizer steps after the last validation; the metrics are those of an earlier model if there are
            any.
        metrics_before: those of the model that the compressed one is compared with.
        modes: metric name -> ``"min"`` or ``"max"``, as the monitors of the Trainer said.
        methods: callback name -> its method in words.
        files: file name -> bytes, of the model files that were written.
        failures: file name -> error, of those that were not.
        latencies: before and after, by the place where they were measured: ``"PyTorch on cpu"``, or the name of a file
            and its runtime, ``"model.onnx in ONNX Runtime"``.
    """

    path: Path
    before: ModelProfile
    after: ModelProfile
    metrics: Mapping[str, float | None]
    unvalidated: int
    metrics_before: Mapping[str, float | None]
    modes: Mapping[str, str]
    methods: Mapping[str, str]
    files: Mapping[str, int]
    failures: Mapping[str, str]
    latencies: Mapping[str, tuple[Latency, Latency]]

    def bytes(self, suffix: str) -> int | None:
        """Bytes of the model file with a suffix; None if the run did not write it."""
        name = f"model{suffix}"
        archive = self.after.archive_bytes if suffix == ".lcz" and name not in self.failures else None
        return self.files.get(name, archive)


def read_report(path: str | Path) -> SavedReport:
    """Read the ``report.json`` of a run.

    Args:
        path: the file.

    Raises:
        ValueError: the file is no report, is damaged, or was written by a later version of this package.
        OSError: the file cannot be read.
    """
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


def _report(path: Path, values: dict[str, Any]) -> SavedReport:
    latencies = {}
    if values["latencies"]:
        latencies[f"PyTorch on {values['latencies'][1]['device']}"] = _pair(values["latencies"])
    for found in values["deployments"]:
        if found["latencies"]:
            latencies[f"{found['file']} in {found['runtime']}"] = _pair(found["latencies"])
    check_count(least=0, **{f"bytes of {name}": size for name, size in values["files"].items()})
    profiles = [ModelProfile.from_dict(values[name]) for name in ("before", "after")]
    check_count(
        least=0, **{"archive_bytes": profiles[0].archive_bytes, "archive_bytes after": profiles[1].archive_bytes}
    )
    unvalidated = values.get("unvalidated", 0)  # earlier versions did not count them
    check_count(least=0, unvalidated=unvalidated)
    return SavedReport(
        path=path,
        before=profiles[0],
        after=profiles[1],
        metrics=_numbers(values["metrics_after"]),
        unvalidated=unvalidated,
        metrics_before=_numbers(values["metrics_before"]),
        modes={name: str(mode) for name, mode in values["modes"].items()},
        methods={name: str(report.get("method", "")) for name, report in values["methods"].items()},
        files=values["files"],
        failures={name: str(error) for name, error in values["failures"].items()},
        latencies=latencies,
    )


def _numbers(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    check_number(**{name: value for name, value in metrics.items() if value is not None})
    return dict(metrics)


def _pair(latencies: list[dict[str, Any]]) -> tuple[Latency, Latency]:
    before, after = (Latency(**latency) for latency in latencies)
    check_number(before=before.median, after=after.median)
    return before, after
