"""Views: a module as it is once its adapters are merged, over the same parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar, cast

from torch import nn

from lightning_compress.adapters.paths import additive_paths

__all__ = ["plain_view"]

_Module = TypeVar("_Module", bound=nn.Module)


def plain_view(module: _Module) -> _Module:
    """A module with the layers of the weights in the places of the layers with adapters.

    It holds the same parameters and layers as ``module``, and is to be looked at, not to be run. Names are those after
    merging. A module without adapters is its own view.

    >>> plain_view(layer := nn.Linear(2, 2)) is layer
    True
    """
    bases = {id(path.layer): path.base for path in additive_paths(module)}
    return cast(_Module, _viewed(module, bases, {})) if bases else module


def _viewed(module: nn.Module, bases: Mapping[int, nn.Module], seen: dict[int, nn.Module]) -> nn.Module:
    if id(module) in bases:
        return bases[id(module)]
    if not any(id(part) in bases for part in module.modules()):
        return module
    if id(module) not in seen:
        twin = seen[id(module)] = object.__new__(type(module))
        children = {n: None if m is None else _viewed(m, bases, seen) for n, m in module._modules.items()}
        twin.__dict__.update({**vars(module), "_modules": children})
    return seen[id(module)]
