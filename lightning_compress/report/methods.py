"""Methods: the reports of the callbacks that compress, and that of a teacher."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_compress.distillation import DistillationModule

__all__ = ["configuration_of", "methods_of", "modes_of", "names_of"]


def names_of(callbacks: Iterable[object]) -> dict[str, Any]:
    """Class name of a callback -> the callback, of those that report; a second one of a class gets a number."""
    names: dict[str, Any] = {}
    for callback in callbacks:
        if getattr(callback, "report", None):
            same = sum(name.split(" ")[0] == type(callback).__name__ for name in names)
            names[f"{type(callback).__name__}{f' {same + 1}' if same else ''}"] = callback
    return names


def methods_of(callbacks: Iterable[object], module: object) -> dict[str, dict[str, object]]:
    """Name of a callback -> its report; ``DistillationModule`` -> that of its teacher."""
    found = {name: callback.report() for name, callback in names_of(callbacks).items()}
    if isinstance(module, DistillationModule):  # ``report`` of the module itself may be one of the student's
        found["DistillationModule"] = module.objective.report()
    return found


def configuration_of(callbacks: Iterable[object]) -> dict[str, str]:
    """Name of a callback -> the call that makes it, if its ``repr`` says so."""
    return {
        name: repr(callback) for name, callback in names_of(callbacks).items() if " object at 0x" not in repr(callback)
    }


def modes_of(callbacks: Iterable[object]) -> dict[str, str]:
    """Metric -> ``"min"`` or ``"max"``, as the monitors of a Trainer say."""
    monitors = ((getattr(one, "monitor", None), getattr(one, "mode", None)) for one in callbacks)
    return {name: mode for name, mode in monitors if isinstance(name, str) and mode in ("min", "max")}
