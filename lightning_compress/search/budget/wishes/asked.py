"""Wishes as they are asked for: the arguments of a budget, and the combinations that cannot come true."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning_compress.channels.budget.runners import eager
from lightning_compress.search.budget.wishes.guard import Guard
from lightning_compress.search.budget.wishes.interface import AnySize, Wish
from lightning_compress.search.budget.wishes.size import Size

__all__ = ["check_asked", "new_wish", "wishes_in"]

_WISHES = "bytes", "macs", "latency", "max_drop"
_OF_A_METRIC = {"monitor": "val_acc", "mode": None, "patience": 2, "reference": None}
_OF_LATENCY = {"runtime": eager, "batch_size": 1}
_OF_CHANNELS = {"round_to": 16}
_OF_UPDATES = {"every_n_steps": 50}


def wishes_in(arguments: Mapping[str, Any]) -> dict[str, float]:
    """The wishes among the arguments of a budget.

    >>> wishes_in({"bytes": 9, "macs": None, "latency": None, "max_drop": None, "patience": 2})
    {'bytes': 9}
    """
    return {name: arguments[name] for name in _WISHES if arguments[name] is not None}


def check_asked(arguments: Mapping[str, Any]) -> None:
    """Refuse wishes that cannot come true together, and arguments that none of them reads.

    Args:
        arguments: name -> value of all arguments of a budget.

    Raises:
        ValueError: there is no wish, two cannot come true together, or an argument has no wish.
    """
    asked = wishes_in(arguments)
    if not asked:
        raise ValueError(
            "need a wish, bytes, macs, latency or max_drop, got none: name the size that the file may have, the "
            "fraction of the MACs or of the latency to keep, or the loss of the metric that you accept"
        )
    if asked.keys() >= {"bytes", "max_drop"}:
        raise ValueError(
            f"need one wish for the file, bytes or max_drop, got {_written(asked)}: name the size that the file may "
            "have, or the loss of the metric that you accept"
        )
    if asked.keys() >= {"macs", "latency"}:
        raise ValueError(
            f"need one wish for the speed, macs or latency, got {_written(asked)}: leave one of the two out"
        )
    if "max_drop" in asked and len(asked) > 1:
        raise ValueError(
            f"need max_drop as the only wish, got {_written(asked)}: channels that are gone do not come back where the "
            "metric fails; fit twice, first with the wish for the speed, then, with the small model, with max_drop"
        )
    if "max_drop" in asked and (ignored := _changed(arguments, _OF_UPDATES)):
        raise ValueError(f"need bytes=, macs= or latency= to update by steps, got {ignored} without: leave it out")
    for wish, defaults, purpose in (
        ("max_drop", _OF_A_METRIC, "to compare a metric"),
        ("latency", _OF_LATENCY, "to measure it"),
    ):
        if wish not in asked and (ignored := _changed(arguments, defaults)):
            raise ValueError(f"need {wish}= {purpose}, got {ignored} without it: leave it out")
    if not asked.keys() & {"macs", "latency"} and (ignored := _changed(arguments, _OF_CHANNELS)):
        raise ValueError(f"need macs= or latency= to remove channels, got {ignored} without them: leave it out")


def new_wish(arguments: Mapping[str, Any]) -> Wish:
    """The wish for the file, of the arguments of a budget.

    Args:
        arguments: name -> value of all arguments of a budget.

    Raises:
        ValueError: an argument is out of its range.
        TypeError: an argument is of another kind.
    """
    if arguments["max_drop"] is not None:
        return Guard(arguments["max_drop"], **{name: arguments[name] for name in _OF_A_METRIC})
    if arguments["bytes"] is not None:
        return Size(arguments["bytes"], narrows=len(wishes_in(arguments)) > 1)
    return AnySize()


def _written(arguments: Mapping[str, object]) -> str:
    """Arguments as they are written in a call: ``"bytes=9 and max_drop=0.1"``."""
    return " and ".join(f"{name}={value!r}" for name, value in arguments.items())


def _changed(arguments: Mapping[str, Any], defaults: Mapping[str, object]) -> str:
    return _written({name: arguments[name] for name, value in defaults.items() if arguments[name] != value})
