"""Wishes: what a budget asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from lightning_compress.arguments import check_count
from lightning_compress.search.budget.guard import Guard
from lightning_compress.search.budget.size import Size

__all__ = ["Wish", "new_wish"]

Wish: TypeAlias = Size | Guard

_DEFAULTS = {"monitor": "val_acc", "mode": "max", "patience": 2, "reference": None}


def new_wish(most: int | None, max_drop: float | None, guarded: Mapping[str, Any]) -> Wish:
    """The wish of the arguments of a budget.

    Args:
        most: ``bytes`` of the budget.
        max_drop: ``max_drop`` of the budget.
        guarded: the other arguments of a :class:`~.guard.Guard`.

    Raises:
        ValueError: there is none, or more than one, or an argument is out of its range.
        TypeError: an argument is of another kind.
    """
    if (most is None) == (max_drop is None):
        raise ValueError(
            f"need one wish, bytes or max_drop, got bytes={most!r} and max_drop={max_drop!r}: name the size that "
            "the file may have, or the loss of the metric that you accept"
        )
    if max_drop is not None:
        return Guard(max_drop, **guarded)
    check_count(bytes=most)
    if ignored := [f"{name}={value!r}" for name, value in guarded.items() if value != _DEFAULTS[name]]:
        raise ValueError(
            f"need max_drop= to compare a metric, got {', '.join(ignored)} with bytes={most}: leave it out"
        )
    return Size(most or 0)
