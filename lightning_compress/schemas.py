"""Schemas: the strict form of a record that comes from a file, which anybody may have written.

A schema is a function of a value and its place in the record. It returns nothing, and raises :class:`RecordError` for
every value that the package would not have written.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor

__all__ = [
    "RecordError",
    "Schema",
    "anything",
    "fields_of",
    "list_of",
    "number_tensor",
    "one_of",
    "refuse",
    "stored",
    "table_of",
    "text",
    "truth",
    "whole",
]

Schema: TypeAlias = Callable[[Any, str], None]
"""Value, place in the record -> None; raises :class:`RecordError`."""


class RecordError(ValueError):
    """A record in a checkpoint or an archive is damaged, forged, or not one of this model."""


def refuse(place: str, needed: str, got: object) -> RecordError:
    """The error for a value in a record.

    Args:
        place: in the record, ``"quantization.quantizers[0].bits"``.
        needed: the values that are allowed there.
        got: the value, of which the error shows the beginning.
    """
    return RecordError(
        f"need {place} as {needed}, got {reprlib.repr(got)}: the file is damaged, or not one of this model"
    )


def whole(low: int, high: int) -> Schema:
    """An integer from ``low`` to ``high``.

    >>> whole(2, 8)(9, "bits")
    Traceback (most recent call last):
    lightning_compress.schemas.RecordError: need bits as an integer from 2 to 8, got 9: ...
    """

    def check(value: Any, place: str) -> None:
        if type(value) is not int or not low <= value <= high:
            raise refuse(place, f"an integer from {low} to {high}", value)

    return check


def anything(value: Any, place: str) -> None:
    """Any value; its owner checks it."""


def text(value: Any, place: str) -> None:
    """Text."""
    if type(value) is not str:
        raise refuse(place, "text", value)


def truth(value: Any, place: str) -> None:
    """True or False."""
    if type(value) is not bool:
        raise refuse(place, "True or False", value)


def one_of(*values: str) -> Schema:
    """One of some words."""

    def check(value: Any, place: str) -> None:
        if type(value) is not str or value not in values:
            raise refuse(place, f"one of {', '.join(values)}", value)

    return check


def number_tensor(ndim: int) -> Schema:
    """A dense floating point tensor of ``ndim`` dimensions and finite numbers."""

    def check(value: Any, place: str) -> None:
        dense = isinstance(value, Tensor) and value.layout is torch.strided and value.device.type != "meta"
        if not (dense and value.is_floating_point() and value.ndim == ndim):
            raise refuse(place, f"a floating point tensor of {ndim} dimensions", value)
        if not bool(torch.isfinite(stored(value)).all()):
            raise refuse(place, "finite numbers", value)

    return check


def stored(tensor: Tensor) -> Tensor:
    """The entries that a file holds: an expanded tensor repeats them, as often as the file claims.

    >>> stored(torch.ones(1, 3).expand(10**12, 3)).shape
    torch.Size([1, 3])
    """
    return tensor[tuple(slice(None) if stride else slice(1) for stride in tensor.stride())]


def list_of(item: Schema, length: int | None = None) -> Schema:
    """A list of values that fit ``item``, of one length if that is given."""

    def check(value: Any, place: str) -> None:
        if type(value) is not list or (length is not None and len(value) != length):
            raise refuse(place, "a list" if length is None else f"a list of {length}", value)
        for index, entry in enumerate(value):
            item(entry, f"{place}[{index}]")

    return check


def table_of(item: Schema) -> Schema:
    """A dictionary from text to values that fit ``item``."""

    def check(value: Any, place: str) -> None:
        if not isinstance(value, dict):
            raise refuse(place, "a dictionary", value)
        for key, entry in value.items():
            text(key, f"a key of {place}")
            item(entry, f"{place}[{key!r}]")

    return check


def fields_of(schemas: Mapping[str, Schema], *, optional: Mapping[str, Schema] | None = None) -> Schema:
    """A dictionary with exactly these keys.

    Args:
        schemas: key -> schema of its value.
        optional: the same, for keys that may be missing.

    >>> fields_of({"bits": whole(2, 8)})({"bits": 4, "code": "..."}, "grid")
    Traceback (most recent call last):
    lightning_compress.schemas.RecordError: need grid as a dictionary with the keys bits, got ['bits', 'code']: ...
    """
    known = {**schemas, **(optional or {})}

    def check(value: Any, place: str) -> None:
        keys = list(value) if isinstance(value, dict) else value
        if not isinstance(value, dict) or not schemas.keys() <= value.keys() <= known.keys():
            raise refuse(place, f"a dictionary with the keys {', '.join(schemas)}", keys)
        for key, entry in value.items():
            known[key](entry, f"{place}.{key}")

    return check
