"""Arguments that are values: numbers, flags, paths and patterns."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_compress.arguments.texts import shown

__all__ = [
    "check_between",
    "check_count",
    "check_decay",
    "check_file",
    "check_flag",
    "check_fraction",
    "check_names",
    "check_number",
    "check_path",
    "check_patterns",
    "check_positive",
]


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


def check_between(least: float, most: float, **arguments: object) -> None:
    """Refuse a number outside the closed interval [least, most].

    Raises:
        TypeError: the value is not a number.
        ValueError: the number is smaller than ``least`` or larger than ``most``.

    >>> check_between(2, 8, weight_bits=32)
    Traceback (most recent call last):
    ValueError: need 2 <= weight_bits <= 8, got weight_bits=32
    """
    check_number(**arguments)
    for name, value in arguments.items():
        if not least <= value <= most:  # type: ignore[operator]
            raise ValueError(f"need {least} <= {name} <= {most}, got {name}={value!r}")


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


def check_positive(**arguments: object) -> None:
    """Refuse a number that is not above 0, or infinite.

    Raises:
        TypeError: the value is not a number.
        ValueError: the number is not in (0, inf).

    >>> check_positive(temperature=0)
    Traceback (most recent call last):
    ValueError: need temperature > 0, got temperature=0
    """
    check_number(**arguments)
    for name, value in arguments.items():
        if not 0 < value < math.inf:  # type: ignore[operator]
            raise ValueError(f"need {name} > 0, got {name}={value!r}")


def check_count(least: float = 1, **arguments: object) -> None:
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


def check_names(form: str, **arguments: object) -> None:
    """Refuse a value that is not a mapping of names to names.

    Args:
        form: the mapping, as it is to be written.
        arguments: name -> value of each argument.

    Raises:
        TypeError: the value is no mapping, or a key or a value in it is no text.

    >>> check_names("{layer: layer that it uses}", ties="a")
    Traceback (most recent call last):
    TypeError: need ties as a mapping, got 'a': write {layer: layer that it uses}
    """
    for name, value in arguments.items():
        if not isinstance(value, Mapping):
            raise TypeError(f"need {name} as a mapping, got {shown(value)}: write {form}")
        for one in (*value, *value.values()):
            if not isinstance(one, str):
                raise TypeError(f"need {name} as names of layers, got {shown(one)} in it")


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
