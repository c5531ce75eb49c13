"""Copies of a LightningModule that do not run compiled code of the original."""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any, TypeVar, cast

from torch import nn

from lightning_compress.adapters import merge
from lightning_compress.adapters.paths import replaced_layers
from lightning_compress.adapters.records import ADAPTERS
from lightning_compress.carried import carry
from lightning_compress.example_inputs import line_of, unwrapped
from lightning_compress.lightnings import LightningModule, package_of
from lightning_compress.processes import is_sharded

__all__ = ["detached_copy", "merged_copy", "uncompiled", "uncompiled_copy"]

_Module = TypeVar("_Module", bound=nn.Module)


def uncompiled_copy(module: LightningModule) -> LightningModule:
    """Copy a module; the Trainer that it is in, if any, and its callbacks are not copied.

    A plain copy of a module that is compiled as a whole would run the original, with the weights of the original.
    """
    trainer: Any = module._trainer
    kept = {} if trainer is None else {id(one): one for one in (trainer, *trainer.callbacks)}
    copied = copy.deepcopy(module, kept)
    if copied._compiler_ctx is None:
        return copied
    compiling: Any = import_module(f"{package_of(type(module))}.utilities.compile")
    return cast(LightningModule, compiling.to_uncompiled(copied))


def detached_copy(module: nn.Module) -> nn.Module:
    """Copy any module, to change it: it is in no Trainer, runs no compiled code, and its log reaches nobody.

    Raises:
        TypeError: the argument is not a module.
        ValueError: the module is sharded over processes, or cannot be copied.
    """
    if is_sharded(unwrapped(module)):
        raise ValueError("need a module with whole parameters, got one that is sharded: pass it before fit shards it")
    try:
        if not isinstance(module, LightningModule):
            return copy.deepcopy(unwrapped(module))
        copied = uncompiled_copy(module)
    except Exception as error:  # an attribute that is a lock, a generator, or a tensor that has a gradient function
        raise ValueError(
            f"need a module that can be copied, got {type(module).__name__}, which raises {line_of(error)}: keep "
            "attributes that cannot be copied outside the module"
        ) from error
    copied._trainer = None
    vars(copied)["log"] = _log_nothing
    return copied


def merged_copy(module: _Module) -> _Module:
    """A copy with merged adapters, as it ships; the module itself if it has no adapters, or is sharded."""
    if not replaced_layers(module) or is_sharded(module):
        return module
    merged = merge(detached_copy(module))
    if isinstance(merged, LightningModule):
        carry(merged, ADAPTERS)
    return cast(_Module, merged)


def _log_nothing(*_: Any, **__: Any) -> None:
    """In place of ``log``, which warns where there is no Trainer."""


def uncompiled(module: nn.Module) -> nn.Module:
    """The module; a copy of it if it is a LightningModule that is compiled as a whole."""
    if not isinstance(module, LightningModule) or module._compiler_ctx is None:
        return module
    return uncompiled_copy(module)
