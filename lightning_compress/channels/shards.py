"""Shards: a module whose parameters ``fully_shard`` (FSDP2) has spread over processes, made whole again.

Dependencies of channels cannot be traced through sharded parameters, and a module of shards can be neither copied nor
exported.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

__all__ = ["gather_", "is_sharded", "unweighted_copy"]

_Module = TypeVar("_Module", bound=nn.Module)


def is_sharded(module: nn.Module) -> bool:
    """Whether ``module`` or a part of it has gone through ``fully_shard``.

    >>> is_sharded(nn.Linear(2, 3))
    False
    """
    return any(isinstance(layer, FSDPModule) for layer in module.modules())


@torch.no_grad()
def gather_(module: nn.Module) -> None:
    """Make a sharded ``module`` an ordinary one, in place, that holds all of its weights; call it on every rank.

    Optimizers and gradients stay behind.
    """
    for layer in module.modules():
        if isinstance(layer, FSDPModule):
            layer.reshard()
    _become_whole_(module, DTensor.full_tensor)


def unweighted_copy(module: _Module) -> _Module:
    """Copy a sharded module as an ordinary one with zeros in place of what is sharded; no process waits for another."""
    before = [(layer, type(layer), dict(vars(layer))) for layer in module.modules()]
    try:
        _become_whole_(module, lambda shard: torch.zeros(shard.shape, dtype=shard.dtype, device=shard.device))
        return copy.deepcopy(module)
    finally:
        for layer, kind, attributes in before:
            layer.__class__ = kind
            vars(layer).clear()
            vars(layer).update(attributes)


def _become_whole_(module: nn.Module, whole: Callable[[DTensor], Tensor]) -> None:
    """Undo ``fully_shard``. Attributes of the layers are replaced, not changed."""
    made = {p: nn.Parameter(whole(p), p.requires_grad) for p in module.parameters() if isinstance(p, DTensor)}
    for layer in module.modules():
        if isinstance(layer, FSDPModule):  # the class that fully_shard has derived from the original one
            kind = next(kind for kind in type(layer).__mro__ if not issubclass(kind, FSDPModule))
            layer.__class__ = kind  # type: ignore[assignment]
        attributes = vars(layer)
        attributes["_parameters"] = {key: made.get(p, p) for key, p in layer._parameters.items()}  # type: ignore[call-overload]
        for key, value in attributes.items():
            if key.endswith("_hooks"):
                attributes[key] = type(value)((k, hook) for k, hook in value.items() if not _shards(hook))
            elif key.startswith("__composable_api"):
                attributes[key] = type(value)()


def _shards(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("torch.distributed.fsdp")
