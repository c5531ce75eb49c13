"""Effects: arguments that another argument switches off."""

from __future__ import annotations

import inspect
from typing import Any

from lightning_compress.arguments.texts import shortened, text_of

__all__ = ["check_effect"]


def check_effect(owner: type[Any], need: str, setting: str, **arguments: object) -> None:
    """Refuse arguments that have no effect, unless they have their defaults.

    Args:
        owner: the class that is constructed; its signature has the defaults.
        need: the argument or value with which they would have an effect.
        setting: the argument that switches them off, as it was written.
        arguments: name -> value of each argument without an effect.

    Raises:
        ValueError: a value is not the default.

    >>> class Compressor:
    ...     def __init__(self, bits=None, *, decay=0.9): ...
    >>> check_effect(Compressor, "bits=", "bits=None", decay=0.9)
    >>> check_effect(Compressor, "bits=", "bits=None", decay=0.5)
    Traceback (most recent call last):
    ValueError: need bits= for decay, got decay=0.5 with bits=None, where it has no effect: leave it out
    """
    defaults = {name: parameter.default for name, parameter in inspect.signature(owner).parameters.items()}
    ignored = {name: value for name, value in arguments.items() if text_of(value) != text_of(defaults[name])}
    if ignored:
        values = ", ".join(f"{name}={shortened(text_of(value))}" for name, value in ignored.items())
        what, them = ("it has", "it") if len(ignored) == 1 else ("they have", "them")
        raise ValueError(
            f"need {need} for {' and '.join(ignored)}, got {values} with {setting}, where {what} no effect: "
            f"leave {them} out"
        )
