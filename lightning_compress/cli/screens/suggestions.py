"""Suggestions: what a user may have meant by a name that is not known."""

from __future__ import annotations

import difflib
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from pydoc import locate
from typing import Any

import lightning_compress
from lightning_compress.cli.vocabulary import located, members_of
from lightning_compress.lightnings import PACKAGES, of_each, package_of
from lightning_compress.messages import hint

__all__ = ["suggestion"]

_GROUPS = ("config", "seed_everything", "trainer", "model", "data", "optimizer", "lr_scheduler", "ckpt_path", "sweep")


def suggestion(message: str) -> str:
    """A hint at the name that an error message of jsonargparse means; empty if none is near.

    >>> suggestion("Expected a dot import path string: PrunningCallback")
    "; did you mean 'PruningCallback'?"
    >>> suggestion("given class_path 'lightning_compress.PruningCallback': Option 'sparsty' is not accepted")
    "; did you mean 'sparsity'?"
    >>> suggestion("unrecognized arguments: --trainer.max_epocs=3")
    "; did you mean 'trainer.max_epochs'?"
    """
    for pattern, found in _KINDS.items():
        if match := re.search(pattern, message):
            return found(*match.groups())
    return ""


def _of_class(path: str, key: str, option: str) -> str:
    """A hint at an argument of a class, of the classes that one of its arguments takes, or of another callback."""
    owner: Any = located(path) or locate(path)
    if owner is None:
        return ""
    parameters = inspect.signature(owner).parameters
    if key:
        annotation = str(parameters[key].annotation) if key in parameters else ""
        kinds = [one for one in members_of(owner, annotation).values() if isinstance(one, type)]
        return hint(option, [name for kind in kinds for name in inspect.signature(kind).parameters])
    near = hint(option, [*parameters, "init_args", "class_path"])
    return near or (_of_callbacks(option) if isinstance(owner, type) and issubclass(owner, of_each("Callback")) else "")


def _of_value(path: str, key: str, value: str) -> str:
    """A hint at the names that an argument of a class takes, in place of a text that is no name."""
    owner: Any = located(path)
    parameters = inspect.signature(owner).parameters if owner else {}
    names = sorted(members_of(owner, str(parameters[key].annotation))) if key in parameters else []
    if not names:
        return _of_name(value)
    return hint(value, names) or f"; write one of {', '.join(names)}, as class_path with init_args if it has arguments"


def _of_name(name: str) -> str:
    """A hint at a public name, whatever letters are large."""
    public = {one.lower(): one for one in lightning_compress.__all__}
    near = difflib.get_close_matches(name.lower(), public, n=1)
    return f"; did you mean {public[near[0]]!r}?" if near else ""


def _of_callbacks(option: str) -> str:
    owners = {name: kind for kind in _callbacks() for name in inspect.signature(kind).parameters}
    near = difflib.get_close_matches(option, owners, n=1)
    if not near:
        return ""
    return (
        f"; did you mean {near[0]!r} of {owners[near[0]].__name__}? A word --trainer.callbacks.NAME is an argument of "
        "the last callback"
    )


def _callbacks() -> Iterator[type]:
    for name in lightning_compress.__all__:
        kind = getattr(lightning_compress, name)
        if isinstance(kind, type) and issubclass(kind, of_each("Callback")):
            yield kind


def _of_command(option: str) -> str:
    """A hint at an option of LightningCLI itself: a group, or an argument of the Trainer."""
    group, dot, _ = option.partition(".")
    if group == "trainer" and dot:
        return hint(option, [f"trainer.{name}" for name in inspect.signature(of_each("Trainer")[0]).parameters])
    return hint(group, _GROUPS)


def _of_module(path: str, name: str) -> str:
    """A hint at a class of a module that is imported."""
    members: Mapping[str, Any] = vars(sys.modules.get(path, object))
    return hint(name, [name for name, member in members.items() if isinstance(member, type)])


def _of_folder(name: str) -> str:
    """A hint at a module in the working directory."""
    return hint(name, [path.stem for path in Path.cwd().iterdir() if path.suffix == ".py" or path.is_dir()])


def _other_lightning(path: str) -> str:
    """A hint at the package of a class that the command does not take, if it is the other Lightning."""
    cls: Any = locate(path)
    package = package_of(cls) if isinstance(cls, type) else None
    if package in (None, PACKAGES[0]):
        return ""
    return (
        f"; {cls.__name__} is of {package}: take it, or its base class, from {PACKAGES[0]}, or train with "
        f"CompressionCLI of lightning_compress.cli.{package}"
    )


_KINDS: dict[str, Callable[..., str]] = {
    r"class_path '([\w.]+)':(?: Parser key \"(\w+)\":)? Option '(\w+)[\w.]*' is not accepted": _of_class,
    r"Import path ([\w.]+) does not correspond to a subclass of": _other_lightning,
    r"Expected a <class 'collections\.abc\.Sequence'>\. Got value: (\S+)$": "; write [{}]".format,
    r"class_path '([\w.]+)': Parser key \"(\w+)\": Expected a dot import path string: (.+)": _of_value,
    r"Expected a dot import path string: (\w+)": _of_name,
    r"arguments are required: \w+\.model$": lambda: "; pass --config FILE, which lightning-compress init writes",
    r"found character.* that cannot start any token": lambda: "; YAML takes no tabs: indent by spaces",
    r"(?:unrecognized arguments: --|does not accept option ')([\w.]+)": _of_command,
    r"module '([\w.]+)' has no attribute '(\w+)'": _of_module,
    r"No module named '(\w+)'": _of_folder,
}
"""Pattern of a message -> a hint, from its groups."""
