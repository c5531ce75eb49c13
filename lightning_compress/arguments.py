"""Arguments: checks at construction, the ``repr`` of an object with arguments, and their text in a checkpoint."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

_LONGEST = 100  # characters of a value in a message

__all__ = [
    "argument_texts",
    "check_code",
    "check_count",
    "check_criterion",
    "check_decay",
    "check_file",
    "check_flag",
    "check_fraction",
    "check_function",
    "check_number",
    "check_path",
    "check_patterns",
    "shown",
    "signature_repr",
]


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
        if isinstance(value, type):
            raise TypeError(f"need {name} as an object, got the class {value.__name__}: write {value.__name__}(...)")
        if isinstance(value, str | int | float):
            raise TypeError(f"need {name} as a function or an object, got {value!r}: import it and pass it itself")


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
    check_code(**functions)
    for name, function in functions.items():
        call = f"{name}({', '.join(arguments)})"
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
    check_code(criterion=criterion)
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


def check_number(**arguments: object) -> None:
    """Refuse a value that is not a number, such as a number given as text, a bool, or NaN.

    Raises:
        TypeError: the value is neither an int nor a float.
        ValueError: the value is not a number (NaN).

    >>> check_number(sparsity="0.9")
    Traceback (most recent call last):
    TypeError: need sparsity as a number, got '0.9'
    """
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"need {name} as a number, got {shown(value)}")
        if value != value:
            raise ValueError(f"need {name} as a number, got {value!r}")


def check_fraction(**arguments: object) -> None:
    """Refuse a number outside the open interval (0, 1).

    Raises:
        TypeError: the value is not a number.
        ValueError: the number is not in (0, 1).

    >>> check_fraction(sparsity=1.5)
    Traceback (most recent call last):
    ValueError: need 0 < sparsity < 1, got sparsity=1.5
    """
    check_number(**arguments)
    for name, value in arguments.items():
        if not 0 < value < 1:  # type: ignore[operator]
            raise ValueError(f"need 0 < {name} < 1, got {name}={value!r}")


def check_decay(**arguments: object) -> None:
    """Refuse a number outside the half-open interval [0, 1).

    Raises:
        TypeError: the value is not a number.
        ValueError: the number is not in [0, 1).

    >>> check_decay(decay=1.0)
    Traceback (most recent call last):
    ValueError: need 0 <= decay < 1, got decay=1.0
    """
    check_number(**arguments)
    for name, value in arguments.items():
        if not 0 <= value < 1:  # type: ignore[operator]
            raise ValueError(f"need 0 <= {name} < 1, got {name}={value!r}")


def check_count(least: int = 1, **arguments: object) -> None:
    """Refuse a value that is not an integer of at least ``least``.

    Raises:
        TypeError: the value is not an integer.
        ValueError: the integer is smaller than ``least``.

    >>> check_count(every_n_steps=2.5)
    Traceback (most recent call last):
    TypeError: need every_n_steps as an integer, got 2.5
    """
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"need {name} as an integer, got {shown(value)}")
        if value < least:
            raise ValueError(f"need {name} >= {least}, got {name}={value!r}")


def check_flag(**arguments: object) -> None:
    """Refuse a value that is neither True nor False, such as ``"no"``, which is true to Python.

    Raises:
        TypeError: the value is no bool.

    >>> check_flag(remove="no")
    Traceback (most recent call last):
    TypeError: need remove as True or False, got 'no'
    """
    for name, value in arguments.items():
        if not isinstance(value, bool):
            raise TypeError(f"need {name} as True or False, got {shown(value)}")


def check_path(**arguments: object) -> None:
    """Refuse a value that is no path.

    Raises:
        TypeError: the value is neither text nor a path.
    """
    for name, value in arguments.items():
        if not isinstance(value, str | os.PathLike):
            raise TypeError(f"need {name} as text or a path, got {shown(value)}")


def check_file(**arguments: Any) -> None:
    """Refuse a path at which there is no file.

    Raises:
        TypeError: the value is no path.
        FileNotFoundError: nothing is there.
        IsADirectoryError: a folder is there.

    >>> check_file(path="none.lcz")
    Traceback (most recent call last):
    FileNotFoundError: need path as that of a file, got 'none.lcz': no such file
    """
    check_path(**arguments)
    for name, value in arguments.items():
        if not Path(value).exists():
            raise FileNotFoundError(f"need {name} as that of a file, got {str(value)!r}: no such file")
        if Path(value).is_dir():
            raise IsADirectoryError(f"need {name} as that of a file, got {str(value)!r}, which is a folder")


def check_patterns(**arguments: object) -> None:
    """Refuse a value that is not a sequence of strings.

    Raises:
        TypeError: the value is one string, or no sequence of strings.

    >>> check_patterns(include="encoder.*")
    Traceback (most recent call last):
    TypeError: need include as a sequence of patterns, got 'encoder.*': write ('encoder.*',)
    """
    for name, value in arguments.items():
        if isinstance(value, str):
            raise TypeError(f"need {name} as a sequence of patterns, got {value!r}: write ({value!r},)")
        if not isinstance(value, Sequence) or not all(isinstance(pattern, str) for pattern in value):
            raise TypeError(f"need {name} as a sequence of patterns, got {shown(value)}")


def shown(value: object) -> str:
    """The ``repr`` of a value in one line of a message, short whatever the value is.

    >>> shown(list(range(99)))[-12:]
    '4, 25, 26...'
    """
    text = " ".join(repr(value).split())
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
    return {name: _text(vars(instance)[name]) for name in names if name in vars(instance)}


def _text(value: object) -> str:
    if isinstance(value, partial):
        options = [f"{name}={_text(option)}" for name, option in value.keywords.items()]
        return f"partial({', '.join([_text(value.func), *map(_text, value.args), *options])})"
    if inspect.isroutine(value) or isinstance(value, type):
        return f"{value.__module__}.{value.__qualname__}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
