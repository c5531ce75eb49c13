"""Arguments that are modules."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

__all__ = ["check_module"]


def check_module(**arguments: object) -> None:
    """Refuse a value that is no module.

    Args:
        arguments: name -> value of each argument.

    Raises:
        TypeError: the value is a class, a state dict, or of another kind.

    >>> check_module(module=nn.Linear)
    Traceback (most recent call last):
    TypeError: need module as a torch.nn.Module, got the class Linear: write Linear(...)
    """
    for name, value in arguments.items():
        if isinstance(value, nn.Module):
            continue
        found, way_out = type(value).__name__, ""
        if isinstance(value, type):
            found, way_out = f"the class {value.__name__}", f": write {value.__name__}(...)"
        elif isinstance(value, Mapping):
            way_out = ": write a state dict by archive.save_archive"
        raise TypeError(f"need {name} as a torch.nn.Module, got {found}{way_out}")
