"""The log of the validations of a trial, which its worker reads while the trial runs."""

from __future__ import annotations

import json
import math
from pathlib import Path

from lightning_compress.lightnings import CallbackBase, LightningModule, Trainer

__all__ = ["ValidationLog"]


class ValidationLog(CallbackBase):
    """Adds the finite metrics of every validation to a file of JSON lines.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit" or trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = {name: value.item() for name, value in trainer.callback_metrics.items() if value.numel() == 1}
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({name: value for name, value in metrics.items() if math.isfinite(value)}) + "\n")
