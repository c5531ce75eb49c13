"""Arguments: what is refused as soon as it is given."""

from __future__ import annotations

__all__ = ["check_code"]


def check_code(**arguments: object) -> None:
    """Refuse what cannot run: criteria, schedules, losses are functions and objects, passed themselves.

    Args:
        arguments: name of the argument -> what was given for it.

    Raises:
        TypeError: it is a string, a number, or a class of which no object was made.

    >>> check_code(criterion="magnitude")
    Traceback (most recent call last):
    TypeError: need criterion as a function or an object, got 'magnitude': import it and pass it itself
    """
    for name, value in arguments.items():
        if isinstance(value, type):
            raise TypeError(f"need {name} as an object, got the class {value.__name__}: write {value.__name__}(...)")
        if isinstance(value, str | int | float):
            raise TypeError(f"need {name} as a function or an object, got {value!r}: import it and pass it itself")
