"""Changes: words that give an argument of one callback another value than the config does."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from jsonargparse import get_loader

from lightning_compress.cli.vocabulary import expanded
from lightning_compress.search.sweeps.keys import key_path, put

__all__ = ["changed_callbacks", "without_changes"]

_KEY = re.compile(r"--(trainer\.callbacks\.(?:[A-Z]\w*|\d+)\.[\w.]+)")  # arguments begin with a small letter


def without_changes(words: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """The words that LightningCLI reads, and the values of ``--trainer.callbacks.CLASS.KEY`` by key; later ones win.

    Args:
        words: those of a command.

    Raises:
        ValueError: a key has no value.

    >>> without_changes(["fit", "--trainer.callbacks.QATCallback.weight_bits", "4", "--trainer.callbacks.x=1"])
    (['fit', '--trainer.callbacks.x=1'], {'trainer.callbacks.QATCallback.weight_bits': '4'})
    """
    kept: list[str] = []
    values: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if found := _KEY.fullmatch(name):
            given = value if equals else next(rest, "--")
            if given.startswith("--"):
                raise ValueError(f"need a value after {name}, got {'none' if given == '--' else repr(given)}")
            values.pop(found[1], None)
            values[found[1]] = given
        else:
            kept.append(word)
    return kept, values


def changed_callbacks(config: Mapping[str, Any], values: Mapping[str, str]) -> str:
    """A word that replaces the callbacks of a config by the same ones with other values.

    Args:
        config: a config with all its arguments.
        values: key, as :func:`~lightning_compress.search.sweeps.keys.key_path` takes it -> value as YAML.

    Raises:
        ValueError: there is no such callback or argument; the error names those that there are.

    >>> config = {"trainer": {"callbacks": [{"class_path": "QATCallback", "init_args": {"weight_bits": 8}}]}}
    >>> changed_callbacks(config, {"trainer.callbacks.QATCallback.weight_bits": "4"})
    '--trainer.callbacks=[{"class_path": "QATCallback", "init_args": {"weight_bits": 4}}]'
    """
    callbacks = config["trainer"]["callbacks"] or []
    changed: dict[str, Any] = {"trainer": {"callbacks": callbacks if isinstance(callbacks, list) else [callbacks]}}
    for name, value in values.items():  # one after the other: a value may bring the key of a later one
        changed = expanded(put(changed, {key_path(changed, name): get_loader("yaml")(value)}))
    return f"--trainer.callbacks={json.dumps(changed['trainer']['callbacks'])}"
