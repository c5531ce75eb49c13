"""Keys: dotted names of the values in a config."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping
from itertools import permutations
from typing import Any, TypeAlias

__all__ = ["KeyPath", "key_path", "key_paths", "put"]

KeyPath: TypeAlias = tuple[str | int, ...]
"""The keys of mappings and the numbers of lists that lead to a value."""

_ARGUMENTS = ("init_args", "dict_kwargs")


def key_path(config: Mapping[str, Any], name: str) -> KeyPath:
    """The path that a dotted key means.

    ``init_args`` may be left out, and an entry of a list is named by its number from 0, or by its class if no other
    entry is of that class: ``trainer.callbacks.PruningCallback.sparsity``.

    Args:
        config: a config with all its arguments.
        name: the dotted name.

    Raises:
        ValueError: there is no such key; the error names those that there are.

    >>> config = {"trainer": {"callbacks": [{"class_path": "lightning_compress.QATCallback", "init_args": {"x": 8}}]}}
    >>> key_path(config, "trainer.callbacks.QATCallback.x")
    ('trainer', 'callbacks', 0, 'init_args', 'x')
    """
    path: list[str | int] = []
    value: Any = config
    for part in name.split("."):
        for key in _step(value, part, name, path):
            path.append(key)
            value = value[key]
    return tuple(path)


def key_paths(config: Mapping[str, Any], names: Iterable[str]) -> dict[str, KeyPath]:
    """The path of each dotted key; see :func:`key_path`.

    Args:
        config: a config with all its arguments.
        names: the dotted names.

    Raises:
        ValueError: there is no such key, or one of them changes the value of another: one value would be lost.

    >>> key_paths({"model": {"lr": 0.1, "width": 3}}, ["model.lr", "model.width"])
    {'model.lr': ('model', 'lr'), 'model.width': ('model', 'width')}
    """
    paths = {name: key_path(config, name) for name in names}
    for (outer, whole), (inner, part) in permutations(paths.items(), 2):
        if part[: len(whole)] == whole:
            raise ValueError(
                f"need keys of different values in sweep, got {outer!r} and {inner!r}, which is "
                f"{'the same value' if part == whole else 'a part of it: one would overwrite the other'}"
            )
    return paths


def put(config: Mapping[str, Any], values: Mapping[KeyPath, Any]) -> dict[str, Any]:
    """A copy of a config with values at some keys.

    >>> put({"model": {"lr": 0.1}}, {("model", "lr"): 0.2})
    {'model': {'lr': 0.2}}
    """
    changed = copy.deepcopy(dict(config))
    for path, value in values.items():
        holder: Any = changed
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = copy.deepcopy(value)
    return changed


def _step(value: Any, part: str, name: str, before: list[str | int]) -> KeyPath:
    where = ".".join(map(str, before)) or "the config"
    if isinstance(value, list):
        return (_number(value, part, name, where),)
    if not isinstance(value, Mapping):
        raise ValueError(f"need {name!r} as a key of the config, got {part!r} of {where}, which is {value!r}")
    if part in value:
        return (part,)
    for holder in _ARGUMENTS:
        if part in (value.get(holder) or {}):
            return (holder, part)
    inside = [str(key) for key in value if key not in (*_ARGUMENTS, "class_path")]
    inside += [str(key) for holder in _ARGUMENTS for key in value.get(holder) or ()]
    raise _missing(part, name, where, inside)


def _number(entries: list[Any], part: str, name: str, where: str) -> int:
    if part.isdigit() and int(part) < len(entries):
        return int(part)
    classes = [
        str(entry.get("class_path")).rpartition(".")[2] if isinstance(entry, Mapping) else "" for entry in entries
    ]
    numbers = [number for number, found in enumerate(classes) if found == part]
    if len(numbers) > 1:
        written = " or ".join(f"{where}.{number}" for number in numbers)
        raise ValueError(f"need one {part} for {name!r}, got {len(numbers)} of them: write {written}")
    if not numbers:
        raise _missing(part, name, where, [found or str(number) for number, found in enumerate(classes)])
    return numbers[0]


def _missing(part: str, name: str, where: str, there: list[str]) -> ValueError:
    near = difflib.get_close_matches(part, there, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    known = ", ".join(there) or "nothing"
    return ValueError(f"need {name!r} as a key of the config, got {part!r} of {where}, which has {known}{hint}")
