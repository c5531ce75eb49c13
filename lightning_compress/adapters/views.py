"""Views: a module as it is once its adapters are merged, or without them, over the same parameters."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import TypeVar, cast

from torch import Tensor, nn

from lightning_compress.adapters.paths import additive_paths

__all__ = ["base_view", "plain_view", "show_"]

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


def base_view(module: _Module) -> _Module:
    """A module without its adapters and hooks, in evaluation mode, which computes with the same tensors.

    Changes of parameters are seen in both; those of layers are not. Modules outside of the tree of submodules, as in a
    plain list, are those of ``module``.

    >>> layer = nn.Linear(2, 2)
    >>> view = base_view(layer)
    >>> view.weight is layer.weight, view.training, layer.training
    (True, False, True)
    """
    return cast(_Module, _based(module, {id(path.layer): path.base for path in additive_paths(module)}, {}))


def show_(view: nn.Module, module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Let a :func:`base_view` compute with other weights in place of those under adapters.

    Args:
        view: of ``module``.
        module: the module.
        weights: name of a weight in ``module`` -> tensor to compute with; of the others, their own.
    """
    for path in additive_paths(module):
        base = view.get_submodule(path.name)
        shown = weights.get(path.weight_name, path.parameter)
        base._parameters[path.key] = nn.Parameter(shown.detach(), requires_grad=False)


def _based(module: nn.Module, bases: Mapping[int, nn.Module], seen: dict[int, nn.Module]) -> nn.Module:
    module = bases.get(id(module), module)
    if id(module) not in seen:
        twin = seen[id(module)] = object.__new__(type(module))
        twin.__dict__.update(vars(module))
        twin._modules = {n: None if m is None else _based(m, bases, seen) for n, m in module._modules.items()}
        twin._parameters = dict(module._parameters)
        twin._forward_pre_hooks, twin._forward_hooks = OrderedDict(), OrderedDict()
        twin.training = False
        if "_disable_adapters" in vars(twin):  # of PEFT: layers that are trained in copies
            vars(twin)["_disable_adapters"] = True
    return seen[id(module)]


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
