"""Copies of a LightningModule that do not run compiled code of the original."""

from __future__ import annotations

import copy

from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.compile import to_uncompiled

__all__ = ["uncompiled", "uncompiled_copy"]


def uncompiled_copy(module: LightningModule) -> LightningModule:
    """Copy a module that is in a Trainer; the Trainer and its callbacks are not copied.

    A plain copy of a module that is compiled as a whole would run the original, with the weights of the original.
    """
    trainer = module.trainer
    kept = {id(one): one for one in (trainer, *trainer.callbacks)}  # type: ignore[attr-defined]
    copied = copy.deepcopy(module, kept)
    return copied if copied._compiler_ctx is None else to_uncompiled(copied)


def uncompiled(module: LightningModule) -> LightningModule:
    """The module; a copy of it if it is compiled as a whole."""
    return module if module._compiler_ctx is None else uncompiled_copy(module)
