"""The incoming model: whether it was trained before, and its validation in the sanity check."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_compress.training import WeightCompression

__all__ = ["FullSanityCheck", "was_trained"]


def was_trained(module: nn.Module, callbacks: Iterable[object]) -> bool:
    """Whether a model that comes into ``fit`` was trained before.

    That is so if a batch normalization has seen batches, or if a method begins at progress 0: who compresses at once
    compresses a trained model.
    """
    norms = [norm.num_batches_tracked for norm in module.modules() if isinstance(norm, _BatchNorm)]
    methods = [callback for callback in callbacks if isinstance(callback, WeightCompression)]
    seen = any(int(batches) > 0 for batches in norms if batches is not None)
    return seen or any(method.schedule(1e-9) > 0 for method in methods)


class FullSanityCheck:
    """Lets the sanity check of a Trainer validate on all batches, until :meth:`close`.

    Args:
        trainer: a Trainer whose ``fit`` has begun.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._steps = vars(trainer).setdefault("_sanity_steps", trainer.num_sanity_val_steps)
        trainer.num_sanity_val_steps = math.inf

    def close(self) -> None:
        """Give the Trainer its number of steps back, which several callbacks may have taken."""
        self._trainer.num_sanity_val_steps = self._steps
        vars(self._trainer).pop("_sanity_steps", None)
