"""A line for a run that Ctrl-C ended: the command that goes on from its newest checkpoint."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from lightning_compress.lightnings import (
    CallbackBase,
    LightningModule,
    ModelCheckpoint,
    Trainer,
    end_bars,
    rank_zero_info,
)

__all__ = ["ResumeLine"]


class ResumeLine(CallbackBase):
    """Says how to go on, where a user ends ``fit`` by Ctrl-C.

    Args:
        words: those of the command, from ``fit`` on.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = words

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if not isinstance(exception, KeyboardInterrupt) or trainer.state.fn != "fit":
            return
        end_bars(trainer)
        newest = _newest(trainer)
        if newest is None:
            rank_zero_info("no checkpoint was written: the run cannot go on, and begins anew")
        else:
            again = shlex.join([*_without_checkpoint(self._words), "--ckpt_path", str(newest)])
            rank_zero_info(f"to go on: lightning-compress {again}")


def _newest(trainer: Trainer) -> Path | None:
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    monitors = [callback for callback in callbacks if isinstance(callback, ModelCheckpoint)]
    named = [Path(path) for one in monitors for path in (one.last_model_path, one.best_model_path) if path]
    return max((path for path in named if path.exists()), key=lambda path: path.stat().st_mtime, default=None)


def _without_checkpoint(words: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for word in words:
        if not skip and word.partition("=")[0] != "--ckpt_path":
            kept.append(word)
        skip = word == "--ckpt_path"
    return kept
