"""Copies of a LightningModule that do not run compiled code of the original."""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any, cast

from torch import nn

from lightning_compress.lightnings import LightningModule, package_of

__all__ = ["uncompiled", "uncompiled_copy"]


def uncompiled_copy(module: LightningModule) -> LightningModule:
    """Copy a module that is in a Trainer; the Trainer and its callbacks are not copied.

    A plain copy of a module that is compiled as a whole would run the original, with the weights of the original.
    """
    trainer = module.trainer
    kept = {id(one): one for one in (trainer, *trainer.callbacks)}  # type: ignore[attr-defined]
    copied = copy.deepcopy(module, kept)
    if copied._compiler_ctx is None:
        return copied
    compiling: Any = import_module(f"{package_of(type(module))}.utilities.compile")
    return cast(LightningModule, compiling.to_uncompiled(copied))


def uncompiled(module: nn.Module) -> nn.Module:
    """The module; a copy of it if it is a LightningModule that is compiled as a whole."""
    if not isinstance(module, LightningModule) or module._compiler_ctx is None:
        return module
    return uncompiled_copy(module)
