"""Validations that are due when a checkpoint is written: a run that resumes from it validates before it trains on.

By itself the Trainer leaves such a validation out after a resume. A method that chooses by a metric would then choose
otherwise than in the run that was not interrupted.
"""

from __future__ import annotations

from typing import Any

from lightning_compress.lightnings import Trainer

__all__ = ["DueValidation"]

_BEGUN = {"ready": 1, "started": 1, "processed": 0, "completed": 0}  # the first batch of a validation is cut short
_EMPTY = dict.fromkeys(_BEGUN, 0)


class DueValidation:
    """Lets a run that is resumed validate first, where the checkpoint is older than a validation that was due.

    Args:
        after: number of training batches before the last validation; -1 before the first.
    """

    def __init__(self, after: int = -1) -> None:
        self.after = after

    def done(self, trainer: Trainer) -> None:
        """A validation of the run has ended, and has been read."""
        self.after = _total(trainer).processed

    def save(self, trainer: Trainer, checkpoint: dict[str, Any]) -> None:
        """Mark a checkpoint that is written between a batch and the validation after it."""
        total, data = _total(trainer), trainer.fit_loop._data_fetcher
        whole = total.processed == total.ready > 0  # no batch is in the middle of its step
        if data is None or not whole or self.after == total.processed:
            return
        if trainer.fit_loop.epoch_loop._should_check_val_fx(data):
            _begin_validation(checkpoint["loops"]["fit_loop"])


def _total(trainer: Trainer) -> Any:
    """Counts of the training batches of the run."""
    return trainer.fit_loop.epoch_loop.batch_progress.total


def _begin_validation(loops: dict[str, Any]) -> None:
    """Let the state of the Trainer's loops be that in the first batch of a validation."""
    training = loops["epoch_loop.batch_progress"]
    for counts in (training["total"], training["current"]):
        counts["completed"] = counts["processed"]
    validation = {"total": dict(_BEGUN), "current": dict(_EMPTY), "is_last_batch": False}
    loops["epoch_loop.val_loop.batch_progress"].update(validation)
