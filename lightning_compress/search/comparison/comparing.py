"""Comparing: reports of many runs are found, read and put side by side."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from lightning_compress.arguments import check_path, shown
from lightning_compress.messages import listed
from lightning_compress.report.comparisons import Comparison
from lightning_compress.report.headlines import direction
from lightning_compress.report.saved_reports import NAME, read_report
from lightning_compress.search.comparison.compared import ComparedRun, ComparedRuns
from lightning_compress.search.comparison.fronts import on_front

__all__ = ["compare", "compared_run", "mode_of"]


def compare(
    paths: Sequence[str | Path],
    *,
    metric: str | None = None,
    mode: Literal["min", "max"] | None = None,
    suffix: str = ".lcz",
) -> ComparedRuns:
    """Compare many runs by the reports that :class:`~lightning_compress.report.CompressionReport` wrote.

    The runs whose metric and bytes no other run beats are marked: they are the Pareto front.

    Args:
        paths: folders with reports in them or below them, or files ``report.json``.
        metric: name of the metric; by default the one that the monitors of the runs watch, else the only one that all
            runs have.
        mode: whether the metric is better when it is smaller (``"min"``) or larger (``"max"``); by default known from
            the monitors, or from a usual word in its name.
        suffix: that of the files whose bytes are compared. The bytes of the archive, ``".lcz"``, are in every report.
            Latencies are those of this file in its runtime, or of PyTorch for ``".lcz"``; a run without them has none.

    Raises:
        ValueError: a folder without a report, a report that is damaged or of a later version, runs without the metric
            or with different ones, a direction that nothing says or that monitors disagree on, or files that no run has
            written.
        FileNotFoundError: a path that does not exist.
        TypeError: ``paths`` is one path.
    """
    if isinstance(paths, str | Path):
        raise TypeError(f"need paths as a list, got {str(paths)!r}: write [{str(paths)!r}]")
    if not isinstance(paths, Sequence):
        raise TypeError(f"need paths as a list, got {shown(paths)}")
    for path in paths:
        check_path(paths=path)
    if mode not in ("min", "max", None):
        raise ValueError(f"need mode 'min' or 'max', got mode={mode!r}")
    reports = [read_report(file) for file in _files(paths)]
    named = _metric(reports, metric)
    chosen = mode if named is None or mode else mode_of(named, _modes(reports, named))
    if all(report.bytes(suffix) is None for report in reports):
        there = sorted({name.removeprefix("model") for report in reports for name in report.files})
        raise ValueError(f"need suffix as that of a file that a run has written, got {suffix!r}; there are: {there}")
    names = _names([_folder(report) for report in reports])
    runs = [compared_run(report, name, named, suffix) for report, name in zip(reports, names, strict=True)]
    runs.sort(key=lambda run: (run.bytes is None, run.bytes or 0, run.name))
    return ComparedRuns(_marked(runs, chosen), named, chosen, suffix)


def compared_run(report: Comparison, name: str, metric: str | None, suffix: str) -> ComparedRun:
    """One run for a table; not yet marked.

    Args:
        report: its report.
        name: its name in the table.
        metric: name of the metric, if there is one.
        suffix: that of the file whose bytes count.
    """
    file = f"model{suffix}"
    inside = [place for place in report.places if place.startswith(f"{file} in ")]
    ours = [place for place in report.places if place.startswith("PyTorch")] if suffix == ".lcz" else []
    places = [*inside, *ours]
    return ComparedRun(
        name=name,
        path=str(report.path),
        methods=tuple(f"{name}: {told['method']}" for name, told in report.methods.items() if told.get("method")),
        bytes=report.bytes(suffix),
        dense_bytes=report.before.archive_bytes if suffix == ".lcz" else None,
        sparsity=report.after.sparsity,
        metric=None if metric is None else report.metric(metric),
        unvalidated=report.unvalidated,
        changed=report.changed,
        latencies=report.places[places[0]] if places else None,
        measured_in=places[0] if places else "",
        front=False,
    )


def mode_of(metric: str, modes: dict[str, str]) -> Literal["min", "max"]:
    """The direction of a metric, as a monitor or its name says.

    Args:
        metric: its name.
        modes: name -> ``"min"`` or ``"max"``, of the metrics that a monitor watches.

    Raises:
        ValueError: nothing says it.
    """
    found = direction(metric, modes)
    if found is None:
        raise ValueError(f"need mode='min' or mode='max', since nothing says when {metric} is better, got none")
    return found


def _folder(report: Comparison) -> Path:
    return (report.path or Path()).parent


def _files(paths: Sequence[str | Path]) -> list[Path]:
    """Every report once, in the order of the paths."""
    found: dict[Path, Path] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise FileNotFoundError(f"need paths of runs, got {str(path)!r}, which does not exist")
        whole = [path] if path.is_file() else sorted(_below(path))
        if not whole:
            raise ValueError(f"need a folder with a {NAME} in it or below it, got {str(path)!r}: did its run end?")
        found |= {file.resolve(): file for file in whole if file.resolve() not in found}
    if not found:
        raise ValueError("need at least one run, got none")
    return list(found.values())


def _below(folder: Path) -> Iterator[Path]:
    """Reports in a folder or below it, not in hidden folders; links to folders are followed, a circle of them once."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if os.path.realpath(place) in seen:
            folders.clear()
            continue
        seen.add(os.path.realpath(place))
        folders[:] = [name for name in folders if not name.startswith(".")]
        if NAME in names:
            yield Path(place) / NAME


def _modes(reports: Sequence[Comparison], metric: str) -> dict[str, str]:
    """The direction that the monitors of the runs have in common; empty if none watches the metric."""
    said = {report.modes[metric]: str(_folder(report)) for report in reversed(reports) if metric in report.modes}
    if len(said) > 1:
        told = " and ".join(f"{mode!r} in {run}" for mode, run in sorted(said.items()))
        raise ValueError(f"need mode='min' or mode='max', since monitors of {metric} disagree, got {told}")
    return {metric: next(iter(said))} if said else {}


def _metric(reports: Sequence[Comparison], asked: str | None) -> str | None:
    """The metric that all runs have; None if no run has any."""
    every = [set(report.metrics_after) for report in reports]
    if asked is not None:
        without = [str(_folder(report)) for report, names in zip(reports, every, strict=True) if asked not in names]
        if without:
            there = sorted(set().union(*every))
            raise ValueError(
                f"need metric as one that every run has, got {asked!r}, which is missing in {listed(without)}; "
                f"there are: {', '.join(there) or 'none'}"
            )
        return asked
    if not any(every):
        return None
    common = set.intersection(*every)
    if not common:
        told: dict[str, Path] = {}
        for report, names in zip(reports, every, strict=True):
            told.setdefault(", ".join(sorted(names)) or "none", _folder(report))
        listed_runs = "; ".join(f"{run} has {there}" for there, run in list(told.items())[:4])
        raise ValueError(f"need runs with a metric in common, got different ones: {listed_runs}")
    watched = {name for report in reports for name in report.modes} & common
    best = watched if len(watched) == 1 else common
    if len(best) > 1:
        raise ValueError(
            f"need metric as one of {', '.join(sorted(best))}, got none: pass metric={min(best)!r}, "
            f"or --metric {min(best)}"
        )
    return best.pop()


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders without the parts that all have in common, at the begin and, as ``version_0``, at the end."""
    whole = [folder.resolve() for folder in folders]
    while len({folder.name for folder in whole}) == 1 and re.fullmatch(r"version_\d+", whole[0].name):
        whole = [folder.parent for folder in whole]
    if len(whole) == 1:
        return [whole[0].name]
    common = Path(os.path.commonpath(whole))
    return [str(folder.relative_to(common)) if folder != common else folder.name for folder in whole]


def _marked(runs: Sequence[ComparedRun], mode: str | None) -> tuple[ComparedRun, ...]:
    """The runs, with those on the Pareto front marked."""
    if mode is None:
        return tuple(runs)
    front = on_front([(run.bytes, run.metric) for run in runs], mode)
    return tuple(replace(run, front=best) for run, best in zip(runs, front, strict=True))
