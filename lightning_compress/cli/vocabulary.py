"""Vocabulary: the bare names that a config may use in place of dotted paths.

``criterion: taylor`` in the arguments of ``PruningCallback`` stands for ``lightning_compress.pruning.criteria.taylor``,
``schedule: Cubic`` for ``{class_path: lightning_compress.schedules.Cubic}``. No name is registered: the type of an
argument (``Criterion``, ``Schedule``, ``Pattern``) is defined in one module, and the functions and classes that this
module exports and that have this type are the names that the argument takes.
"""

from __future__ import annotations

import inspect
import json
import re
import sys
from argparse import ArgumentError
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass
from importlib import import_module
from itertools import takewhile
from pydoc import ErrorDuringImport, locate
from types import ModuleType
from typing import Any, get_args, get_origin

import lightning_compress
from lightning_compress.messages import hint

__all__ = ["expanded", "expanded_words", "located", "members_of"]

_PACKAGE = "lightning_compress"
_PLAIN = (bool, int, float, str, type(None))


def expanded(config: Any) -> Any:
    """A config with dotted paths in place of the bare names that arguments of this package take.

    Args:
        config: nested mappings, sequences and values, as YAML gives them.

    Raises:
        argparse.ArgumentError: an argument that takes such names has a bare name that does not exist.

    >>> expanded({"class_path": "PruningCallback", "init_args": {"criterion": "taylor", "scope": "layer"}})["init_args"]
    {'criterion': 'lightning_compress.pruning.criteria.taylor', 'scope': 'layer'}
    """
    if isinstance(config, dict):
        owner = located(config.get("class_path"))
        return {
            key: _expanded_arguments(value, owner) if key == "init_args" and owner else expanded(value)
            for key, value in config.items()
        }
    return [expanded(value) for value in config] if isinstance(config, list) else config


def expanded_words(words: Sequence[str]) -> list[str]:
    """Command line words, with bare names expanded in ``--trainer.callbacks.ARGUMENT=NAME``.

    >>> expanded_words(["--trainer.callbacks=PruningCallback", "--trainer.callbacks.criterion=taylor"])[1]
    '--trainer.callbacks.criterion=lightning_compress.pruning.criteria.taylor'
    """
    found: list[str] = []
    owner: Any = None
    key = ""
    for word in words:
        name, equals, value = word.partition("=") if word.startswith("--") else (key, "", word)
        chosen = re.fullmatch(r"--trainer\.callbacks\+?", name)
        argument = re.fullmatch(r"--trainer\.callbacks\.(?:init_args\.)?(\w+)", name)
        if chosen and value:
            owner = located(value)
        elif argument and owner and value:
            value = _as_word(_expanded_arguments({argument[1]: value}, owner)[argument[1]])
        found.append(f"{name}{equals}{value}" if word.startswith("--") else value)
        key = name if word.startswith("--") and not equals else ""
    return found


def _expanded_arguments(arguments: Any, owner: Any) -> Any:
    if not isinstance(arguments, dict):
        return arguments
    parameters = inspect.signature(owner).parameters
    return {
        key: _expanded_value(value, key, owner, str(parameters[key].annotation))
        if key in parameters
        else expanded(value)
        for key, value in arguments.items()
    }


def _expanded_value(value: Any, argument: str, owner: Any, annotation: str) -> Any:
    if isinstance(value, list):
        return [_expanded_value(one, argument, owner, annotation) for one in value]
    names = members_of(owner, annotation)
    named = isinstance(value, str) and value.isidentifier() and bool(names)
    if named and (value in names or not re.search(r"\bstr\b", annotation)):
        chosen = _chosen(value, argument, names)
        return _whole({"class_path": _path(chosen)}) if isinstance(chosen, type) else _path(chosen)
    if not isinstance(value, dict):
        return value
    bare = str(value.get("class_path", "."))
    if names and bare.isidentifier() and located(bare) is None:
        value = {**value, "class_path": _path(_chosen(bare, argument, names))}
    part = next((kind for kind in _types(owner, annotation) if is_dataclass(kind)), None)
    if part and "class_path" not in value:
        return _expanded_arguments(value, part)
    return _whole(expanded(value)) if names and "class_path" in value else expanded(value)


def _whole(value: dict[str, Any]) -> dict[str, Any]:
    """A class with all its arguments: jsonargparse takes those that are left out from the default of the argument.

    >>> _whole({"class_path": "lightning_compress.schedules.Linear", "init_args": {"until": 0.5}})["init_args"]
    {'begin': 0.0, 'until': 0.5}
    """
    try:
        kind = located(value["class_path"]) or locate(str(value["class_path"]))
    except ErrorDuringImport:  # jsonargparse says so
        return value
    if not isinstance(kind, type):
        return value
    given = value.get("init_args") or {}
    parameters = inspect.signature(kind).parameters.values()
    defaults = {one.name: one.default for one in parameters if isinstance(one.default, _PLAIN)}
    whole = {**defaults, **given} if isinstance(given, dict) else given
    return {**value, "init_args": whole} if whole else value


def _chosen(name: str, argument: str, names: dict[str, Any]) -> Any:
    if name in names:
        return names[name]
    raise ArgumentError(
        None,
        f"need {argument} as one of {', '.join(sorted(names))}, or as a dotted path to your own, got {name!r}"
        + hint(name, names),
    )


def members_of(owner: Any, annotation: str) -> dict[str, Any]:
    """Bare name -> function or class that an argument with this annotation takes."""
    names: dict[str, Any] = {}
    for identifier in re.findall(r"[A-Za-z_]\w*", annotation):
        home = _home(owner, identifier)
        if home is not None:
            kind = getattr(home, identifier)
            exported = [name for name in home.__all__ if name != identifier and not name.startswith("check_")]
            members = {name: getattr(home, name) for name in exported}
            names |= {name: member for name, member in members.items() if _has_type(member, kind)} or _subclasses(kind)
    return names


def _subclasses(kind: Any) -> dict[str, Any]:
    """Name -> subclass in this package of an abstract class whose subclasses have files of their own, as writers do."""
    if not inspect.isabstract(kind):
        return {}
    found = {name: sub for below in kind.__subclasses__() for name, sub in _subclasses(below).items()}
    near = [sub for sub in kind.__subclasses__() if not inspect.isabstract(sub)]
    return found | {sub.__name__: sub for sub in near if sub.__module__.startswith(f"{_PACKAGE}.")}


def _has_type(member: Any, kind: Any) -> bool:
    """Whether a function, or the objects of a class, have the type ``kind``: a base class or a callable alias."""
    if isinstance(kind, type):
        return isinstance(member, type) and kind in member.__mro__ and not inspect.isabstract(member)
    if get_origin(kind) is not Callable or not callable(member) or inspect.isabstract(member):
        return False
    if isinstance(member, type) and "__call__" not in dir(member):
        return False
    if not isinstance(member, type) and member.__annotations__.get("return") == "None":  # a check beside the schedules
        return False
    arguments = get_args(kind)[0]
    return arguments is ... or _needed(member) == len(arguments)


def _needed(member: Any) -> int:
    """How many positional arguments a function, or an object of a class, needs."""
    function = member.__call__ if isinstance(member, type) else member
    parameters = list(inspect.signature(function).parameters.values())[isinstance(member, type) :]
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.default is p.empty and p.kind in positional for p in parameters)


def _home(owner: Any, identifier: str) -> ModuleType | None:
    """The module of this package that defines the type ``identifier``, nearest to that of ``owner``.

    A room that exports the type may only pass it on, so it counts only if no file does.
    """
    homes = [
        module
        for name, module in sys.modules.items()
        if name.startswith(f"{_PACKAGE}.") and identifier in getattr(module, "__all__", ())
    ]
    files = [module for module in homes if not hasattr(module, "__path__")]
    return max(files or homes, key=lambda module: _common(module.__name__, owner.__module__), default=None)


def _common(one: str, other: str) -> int:
    """How many parts two dotted paths have in common at their beginnings."""
    pairs = zip(one.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _types(owner: Any, annotation: str) -> list[Any]:
    """The classes of this package that an annotation names."""
    homes = {name: _home(owner, name) for name in re.findall(r"[A-Za-z_]\w*", annotation)}
    found = [getattr(home, name) for name, home in homes.items() if home is not None]
    return [kind for kind in found if isinstance(kind, type)]


def located(path: Any) -> Any:
    """The class or function of this package at a dotted path, or under its public name; None if it is no such path."""
    if not isinstance(path, str):
        return None
    if path in lightning_compress.__all__:
        return getattr(lightning_compress, path)
    module, _, name = path.rpartition(".")
    if module.partition(".")[0] != _PACKAGE:
        return None
    try:
        return getattr(import_module(module), name, None)
    except ImportError:
        return None


def _path(member: Any) -> str:
    return f"{member.__module__}.{member.__name__}"


def _as_word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
