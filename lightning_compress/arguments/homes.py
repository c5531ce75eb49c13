"""Homes: the module from which the value of an argument is imported, for messages that refuse its name."""

from __future__ import annotations

import re
from importlib import import_module

__all__ = ["HOMES", "import_hint"]

_PACKAGE = __name__.partition(".")[0]

HOMES: dict[str, tuple[str, str]] = {
    "gradient": ("sharing.gradients", "summed"),
    "granularity": ("quantization.granularities", "PerChannel()"),
    "init": ("sharing.initial_centers", "plus_plus"),
    "loss": ("distillation.losses", "SoftTargets()"),
    "loss(module, batch)": ("search", "training_loss"),
    "metric": ("search", "Logged('val_acc')"),
    "observer": ("quantization.observers", "minmax"),
    "pattern": ("pruning.patterns", "NM(2, 4)"),
    "profile": ("quantization.profiles", "OnnxRuntime()"),
    "runtime": ("deploy.runtimes", "OnnxRuntime()"),
    "scale": ("quantization.scales", "absmax"),
    "schedule": ("schedules", "Cubic()"),
}
"""Argument, or its call where it differs from the others of its name -> its module in this package, and a value."""


def import_hint(argument: str, given: object, home: str = "", call: str = "") -> str:
    """The import and the value that a user means who gave a name; empty if the argument has no home.

    Args:
        argument: name of the argument.
        given: its value, such as a name.
        home: its module in this package, without the name of the package; by default that of :data:`HOMES`.
        call: the argument with the arguments that it is called with.

    >>> import_hint("pattern", "2:4")
    ", pattern=NM(2, 4) after 'from lightning_compress.pruning.patterns import NM'"
    """
    home, value = (home, "magnitude") if home else HOMES.get(call) or HOMES.get(argument) or ("", "")
    if not home:
        return ""
    meant = _meant(given, home) or _written(argument, given) or value
    name = meant.partition("(")[0]
    return f", {argument}={meant} after 'from {_PACKAGE}.{home} import {name}'"


def _meant(given: object, home: str) -> str:
    """The public name of a module that a text means, whatever letters are large, as it is passed."""
    module = import_module(f"{_PACKAGE}.{home}")
    names = {_plain(name): name for name in module.__all__}
    name = names.get(_plain(given), "") if isinstance(given, str) else ""
    return f"{name}()" if name and isinstance(getattr(module, name), type) else name


def _plain(name: object) -> str:
    return re.sub(r"[\W_]", "", str(name)).lower()


def _written(argument: str, given: object) -> str:
    """The value behind a text of another kind: N:M of a pattern, the name of a logged metric."""
    if argument == "metric" and isinstance(given, str):
        return f"Logged({given!r})"
    ratio = re.fullmatch(r"(\d+):(\d+)", given) if argument == "pattern" and isinstance(given, str) else None
    return f"NM({ratio[1]}, {ratio[2]})" if ratio else ""
