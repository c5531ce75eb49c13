"""Arguments that are code: functions and objects, which a method can call."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from lightning_compress.arguments.homes import import_hint
from lightning_compress.arguments.texts import shown

__all__ = ["check_code", "check_criterion", "check_function"]


def check_code(**arguments: object) -> None:
    """Refuse a name, a number or a class where a function or an object is needed.

    Args:
        arguments: name -> value of each argument.

    Raises:
        TypeError: the value is a string, a number or a class.

    >>> check_code(criterion="magnitude")
    Traceback (most recent call last):
    TypeError: need criterion as a function or an object, got 'magnitude': import it and pass it itself
    """
    for name, value in arguments.items():
        _check_code(name, value)


def _check_code(name: str, value: object, home: str = "", call: str = "") -> None:
    if isinstance(value, type):
        raise TypeError(f"need {name} as an object, got the class {value.__name__}: write {value.__name__}(...)")
    if isinstance(value, str | int | float):
        raise TypeError(
            f"need {name} as a function or an object, got {value!r}: import it and pass it itself"
            f"{import_hint(name, value, home, call)}"
        )


def check_function(*arguments: str, **functions: object) -> None:
    """Refuse a value that cannot be called with the arguments that a method passes to it.

    Args:
        arguments: names of the arguments that the method passes, by position.
        functions: name -> value of each argument that is a function.

    Raises:
        TypeError: the value is no function, or takes other arguments.

    >>> check_function("values", "bits", observer=None)
    Traceback (most recent call last):
    TypeError: need observer(values, bits) as a function, got None: leave observer out for its default
    """
    for name, function in functions.items():
        call = f"{name}({', '.join(arguments)})"
        _check_code(name, function, call=call)
        if not callable(function):
            raise TypeError(f"need {call} as a function, got {shown(function)}: leave {name} out for its default")
        try:
            inspect.signature(function).bind(*arguments)
        except ValueError:  # Python does not know the signatures of some built-in functions
            continue
        except TypeError as error:
            raise TypeError(f"need {call}, got {shown(function)}, which takes other arguments: {error}") from None


def check_criterion(criterion: Callable[..., Any], home: ModuleType, *arguments: str) -> None:
    """Refuse a criterion that a method cannot call, such as one of another method.

    Args:
        criterion: the function or object.
        home: the module that holds the method's own criteria.
        arguments: names of the arguments that the method passes to a criterion, by position.

    Raises:
        TypeError: the criterion is no function, takes fewer arguments, or needs more.
    """
    _check_code("criterion", criterion, home.__name__.partition(".")[2])
    if not callable(criterion):
        raise TypeError(f"need criterion as a function, got {shown(criterion)}: leave criterion out for its default")
    try:
        signature = inspect.signature(criterion)
    except ValueError:  # Python does not know the signatures of some built-in functions
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        function = getattr(criterion, "func", criterion)  # the function inside a functools.partial
        name = getattr(function, "__name__", type(function).__name__)
        package, _, path = function.__module__.partition(".")
        given = f"{path}.{name}" if package == __name__.partition(".")[0] else name
        fix = f": use {home.__name__.partition('.')[2]}.{name}" if given != name and hasattr(home, name) else ""
        raise TypeError(
            f"need criterion({', '.join(arguments)}), as those of {home.__name__}, "
            f"got {given}({', '.join(signature.parameters)}){fix}"
        ) from None
