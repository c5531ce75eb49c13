"""Methods: the reports of the callbacks that compress."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["methods_of"]


def methods_of(callbacks: Sequence[object]) -> dict[str, dict[str, object]]:
    """Class name of a callback -> its report; a second callback of a class gets a number."""
    reports: dict[str, dict[str, object]] = {}
    for callback in callbacks:
        if report := getattr(callback, "report", None):
            same = sum(name.split(" ")[0] == type(callback).__name__ for name in reports)
            reports[f"{type(callback).__name__}{f' {same + 1}' if same else ''}"] = report()
    return reports
