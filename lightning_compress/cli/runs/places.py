"""Places: the file, the line and the key of a config that an error is about."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import yaml

from lightning_compress.cli.runs.given import configs_of, options_of

__all__ = ["placed"]

_UNNAMED = '"<unicode string>"'  # the file, in errors of YAML
_KEYS = r"""(?:Parser key "|[Oo]ption ')([\w.]+)["']"""
_CLASSES = r"class_path '([\w.]+)'"


@dataclass(frozen=True)
class Entry:
    """An entry of a config.

    Attributes:
        file: the config.
        line: counted from 1.
        key: as on the command line, ``trainer.callbacks.0.sparsity``.
        value: of a scalar, as text, or the ``class_path``; empty for others.
        owner: last part of the ``class_path`` of what it is an argument of; empty for none.
    """

    file: str
    line: int
    key: str
    value: str
    owner: str

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]

    @property
    def made(self) -> str:
        """The name of the class, if the value is one, without its module."""
        return self.value.rpartition(".")[2]


def placed(said: str, words: Sequence[str], error: BaseException) -> str:
    """A message, and behind it the place in a config that it is about, where there is one.

    Args:
        said: the message.
        words: of the command.
        error: that was raised.
    """
    found: list[Entry] = []
    for path in configs_of(words):
        try:
            root = yaml.compose(path.read_text(encoding="utf-8"))
        except yaml.YAMLError:
            return said.replace(_UNNAMED, str(path))
        except (OSError, UnicodeDecodeError):
            return said
        found = [*_entries(root, str(path)), *found]  # of two configs the later holds
    typed = {option.rpartition(".")[2] for option in options_of(words)}
    entries = _meant(said, [entry for entry in found if entry.name not in typed], error)
    if not entries or entries[0].file in said:
        return said
    file = entries[0].file
    others = [entry for entry in entries if entry.file == file]
    place = f"{file}, line {others[0].line}, {others[0].key}" if len(others) == 1 else file
    return f"{said} (in {place})"


def _meant(said: str, entries: list[Entry], error: BaseException) -> list[Entry]:
    """Those of the entries that an error is about."""
    kept = _named(said, entries) if re.search(_KEYS, said) else _arguments(said, entries, error)
    first = min(kept, key=lambda entry: _position(entry.name, said), default=None)
    alike = [entry for entry in kept if first and entry.name == first.name]
    return [entry for entry in alike if entry.value and re.search(rf"(?<!\w){re.escape(entry.value)}", said)] or alike


def _named(said: str, entries: list[Entry]) -> list[Entry]:
    """Those with the last key that a message of jsonargparse names, in the last class that it names."""
    owner = (re.findall(_CLASSES, said) or [""])[-1].rpartition(".")[2]
    name = re.findall(_KEYS, said)[-1].removesuffix(".class_path").rpartition(".")[2]
    named = [entry for entry in entries if entry.name == name and entry.owner == owner]
    if named or "is not accepted" in said:  # a word of the command line, if no config has it
        return named
    return [entry for entry in entries if owner and entry.made == owner]


def _arguments(said: str, entries: list[Entry], error: BaseException) -> list[Entry]:
    """The arguments that a message names, of the innermost class of the config that has raised; or the class."""
    for owner in _raising(error):
        if made := [entry for entry in entries if entry.made == owner]:
            named = [entry for entry in entries if entry.owner == owner and _position(entry.name, said) < len(said)]
            return named or made
    return [
        entry for entry in entries if entry.value and f"need {entry.name} " in said and f"got {entry.value!r}" in said
    ]


def _position(name: str, said: str) -> int:
    """Where a message names a key; its length if it does not."""
    match = re.search(rf"(?<!\w){re.escape(name)}(?!\w)", said)
    return match.start() if match else len(said)


def _raising(error: BaseException | None) -> list[str]:
    """Names of the classes and functions whose code raised an error, the innermost first."""
    names: list[str] = []
    while error is not None:
        for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
            owner = frame.f_locals.get("self")
            names.append(frame.f_code.co_name if owner is None else type(owner).__name__)
        error = error.__cause__
    return names


def _entries(node: yaml.Node | None, file: str, key: str = "", owner: str = "") -> Iterator[Entry]:
    """The entries of a config; those of ``init_args`` are arguments of the class beside it."""
    pairs: list[tuple[str, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        pairs = [(str(name.value), name, value) for name, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        pairs = [(str(number), value, value) for number, value in enumerate(node.value)]
    for name, begin, value in pairs:
        if name == "init_args":
            yield from _entries(value, file, key, _text_of(node).rpartition(".")[2])
        elif name != "class_path":
            inner = f"{key}.{name}".lstrip(".")
            yield Entry(file, begin.start_mark.line + 1, inner, _text_of(value), owner)
            yield from _entries(value, file, inner, owner if isinstance(node, yaml.SequenceNode) else "")


def _text_of(node: yaml.Node | None) -> str:
    """The value of a scalar, or the ``class_path`` of a mapping."""
    if isinstance(node, yaml.MappingNode):
        return next((str(value.value) for name, value in node.value if name.value == "class_path"), "")
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""
