"""Choices: the callbacks of a config, each for the layers that it suits, as a config of their own."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

import lightning_compress
from lightning_compress.drafts import draft_of
from lightning_compress.search import Sensitivity
from lightning_compress.training import WeightCompression

__all__ = ["write_choice"]


def write_choice(found: Sensitivity, drop: float, written: Sequence[tuple[Any, Mapping[str, Any]]], path: str) -> None:
    """Write the callbacks that make each layer smallest, among those whose drop on the layer alone is small enough.

    Other callbacks of the config stay. A fit takes the file behind its config: ``--config config.yaml --config FILE``.

    Args:
        found: sensitivities of the callbacks.
        drop: the largest drop of a layer alone.
        written: each callback of the config, and the words that it stands for.
        path: the file.

    Raises:
        ValueError: no callback has a layer with such a drop.
    """
    chosen = found.choose(drop)
    if not chosen:
        least = min((row.drop for row in found.rows), default=0.0)
        raise ValueError(f"need --drop of at least {least:.3g}, the smallest drop of a layer alone, got {drop:g}")
    entries = []
    for callback, words in written:
        if not isinstance(callback, WeightCompression):
            entries.append(_entry(callback, words))
        elif layers := chosen.get(repr(callback)):
            entries.append(_entry(callback, words, include=list(layers)))
    text = yaml.safe_dump({"trainer": {"callbacks": entries}}, sort_keys=False, width=100)
    head = (
        f"# Each layer with the callback that makes it smallest, at a drop of at most {drop:g} for the layer alone.\n"
    )
    with draft_of(path) as draft:
        draft.write_text(head + text, encoding="utf-8")


def _entry(callback: Any, words: Mapping[str, Any], **changed: Any) -> dict[str, Any]:
    """The words of a callback without arguments that have their defaults, and with some that are changed."""
    name = str(words["class_path"])
    bare = name.rpartition(".")[2]
    known = getattr(lightning_compress, bare, None) is type(callback)
    given = {key: value for key, value in words.get("init_args", {}).items() if not _is_default(callback, key, value)}
    arguments = {**given, **changed}
    return {"class_path": bare if known else name, **({"init_args": arguments} if arguments else {})}


def _is_default(callback: Any, name: str, word: Any) -> bool:
    """Whether the word for an argument stands for its default; objects are compared as the callback has them."""
    parameters = inspect.signature(type(callback)).parameters
    if name not in parameters:  # of **kwargs
        return False
    default = parameters[name].default
    values = (word, vars(callback).get(name, word))
    return any(value == default or (isinstance(value, list) and value == list(default or ())) for value in values)
