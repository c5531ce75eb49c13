"""Trainers that print and write nothing."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, Trainer

__all__ = ["trainer"]


def trainer(*callbacks: Callback, **options: Any) -> Trainer:
    """A Trainer on the CPU, without validation unless the options ask for it."""
    return Trainer(
        accelerator="cpu",
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"limit_val_batches": 0, **options},
    )
