"""Texts: values in messages, the ``repr`` of an object with arguments, and their text in a checkpoint."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from functools import partial

_LONGEST = 100  # characters of a value in a message

__all__ = ["argument_texts", "shortened", "shown", "signature_repr", "text_of"]


def shown(value: object) -> str:
    """The ``repr`` of a value in one line of a message, short whatever the value is.

    >>> shown(list(range(99)))[-12:]
    '4, 25, 26...'
    """
    return shortened(repr(value))


def shortened(text: str) -> str:
    """A text in one line, of at most 100 characters."""
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def signature_repr(instance: object, values: Mapping[str, object] | None = None) -> str:
    """The call that makes ``instance``: its arguments that differ from their defaults.

    An argument without a value is left out. A function is shown by its name.

    Args:
        instance: an object of any class.
        values: name of an argument -> its value; None to read the attributes of ``instance``.

    >>> class Half:
    ...     def __init__(self, amount, *, scope="global", criterion=None):
    ...         self.amount, self.scope, self.criterion = amount, scope, criterion
    >>> signature_repr(Half(0.5, criterion=len))
    'Half(amount=0.5, criterion=len)'
    """
    shown, values = [], vars(instance) if values is None else values
    for name, parameter in inspect.signature(type(instance).__init__).parameters.items():
        if name in values and (value := values[name]) != parameter.default:
            shown.append(f"{name}={value.__name__ if inspect.isroutine(value) else repr(value)}")
    return f"{type(instance).__name__}({', '.join(shown)})"


def argument_texts(instance: object) -> dict[str, str]:
    """Name -> text of each argument that made ``instance``: equal arguments have equal texts in every process.

    The values are the attributes of ``instance``; an argument without one is left out. A function is shown by its
    qualified name, since its ``repr`` holds an address in memory.

    >>> class Half:
    ...     def __init__(self, amount, *, scope="global", criterion=None):
    ...         self.amount, self.scope, self.criterion = amount, scope, criterion
    >>> argument_texts(Half(0.5, criterion=partial(max, key=len)))
    {'amount': '0.5', 'scope': "'global'", 'criterion': 'partial(builtins.max, key=builtins.len)'}
    """
    names = list(inspect.signature(type(instance).__init__).parameters)
    return {name: text_of(vars(instance)[name]) for name in names if name in vars(instance)}


def text_of(value: object) -> str:
    """The text of one value: a function by its qualified name, an object without its address in memory."""
    if isinstance(value, partial):
        options = [f"{name}={text_of(option)}" for name, option in value.keywords.items()]
        return f"partial({', '.join([text_of(value.func), *map(text_of, value.args), *options])})"
    if inspect.isroutine(value) or isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
