"""Structures by name: each room of a method defines the one that it carries."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pkgutil import iter_modules
from typing import cast

from torch import nn

from lightning_compress.carried import Structure, carried_structures
from lightning_compress.schemas import RecordError

__all__ = ["find_structure", "structures_in"]

_PACKAGE = __name__.partition(".")[0]


def find_structure(key: str, given: Sequence[Structure] = ()) -> Structure:
    """The structure of a record: one that was given, or that of the room of this name.

    Raises:
        RecordError: there is none.
    """
    for structure in given:
        if structure.key == key:
            return structure
    known = _keys()
    if key not in known:
        raise RecordError(
            f"need the structure of every record in the file, got a record {key!r:.60} beside those of {known}: "
            f"update {_PACKAGE}, or pass the structure of the package that defines this method in structures"
        )
    return cast(Structure, getattr(import_module(f"{_PACKAGE}.{key}.records"), key.upper()))


def structures_in(module: nn.Module) -> list[Structure]:
    """The structures that ``module`` carries, or that alter it as a part of another module."""
    carried = carried_structures(module)
    keys = {structure.key for structure in carried}
    others = [find_structure(key) for key in _keys() if key not in keys]
    altering = [one for one in others if (record := one.record(module)) and one.alters(record)]
    return sorted([*carried, *altering], key=lambda structure: structure.order)


@cache
def _keys() -> list[str]:
    rooms = [room.name for room in iter_modules(import_module(_PACKAGE).__path__) if room.ispkg]
    return [room for room in rooms if find_spec(f"{_PACKAGE}.{room}.records") is not None]
