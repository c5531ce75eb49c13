"""Monitors: ModelCheckpoint and EarlyStopping wait until the model reaches the asked compression.

While a schedule ramps, an early model looks best because it is nearly dense. Until the compression is reached, a
monitored ModelCheckpoint therefore picks no model and EarlyStopping does not count; scores from before compression are
discarded. A checkpoint of the last state (``save_last``) is still written, and a checkpoint without a monitor is not
affected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from lightning_compress.lightnings import Callback, EarlyStopping, LightningModule, ModelCheckpoint, Trainer

__all__ = ["MonitorGate"]


class MonitorGate:
    """Holds monitors back while ``closed()`` is true.

    The monitors keep their class and their state. Their deciding methods are shadowed on the instances until
    :meth:`release`.

    Args:
        callbacks: the callbacks of the Trainer; only monitored ModelCheckpoints and EarlyStoppings are affected.
        closed: called at every decision.
    """

    def __init__(self, callbacks: Iterable[Callback], closed: Callable[[], bool]) -> None:
        self._closed = closed
        self._shadowed: list[tuple[Callback, str]] = []
        for callback in callbacks:
            if isinstance(callback, ModelCheckpoint) and callback.monitor is not None:
                self._shadow(callback, "check_monitor_top_k", self._pick(callback))
            elif isinstance(callback, EarlyStopping):
                for hook in ("on_train_epoch_end", "on_validation_end"):
                    self._shadow(callback, hook, self._wait(getattr(callback, hook)))

    def forget(self) -> None:
        """Discard scores and picks from before compression, such as those of a dense run that is resumed."""
        for callback, _ in self._shadowed:
            if isinstance(callback, ModelCheckpoint):
                callback.best_k_models = {}
                callback.best_model_path = callback.kth_best_model_path = ""
                callback.best_model_score = None
            elif isinstance(callback, EarlyStopping):
                callback.wait_count = 0
                callback.best_score = torch.tensor(torch.inf if callback.mode == "min" else -torch.inf)

    def release(self) -> None:
        """Give every monitor its own methods back."""
        for callback, method in self._shadowed:
            vars(callback).pop(method, None)
        self._shadowed.clear()

    def _shadow(self, callback: Callback, method: str, shadow: Callable[..., Any]) -> None:
        setattr(callback, method, shadow)
        self._shadowed.append((callback, method))

    def _pick(self, checkpoint: ModelCheckpoint) -> Callable[..., bool]:
        decide = checkpoint.check_monitor_top_k

        def check_monitor_top_k(trainer: Trainer, current: Tensor | None = None) -> bool:
            if not self._closed():
                return decide(trainer, current)
            # Lightning refreshes the last checkpoint only together with a best one, and there is none yet.
            checkpoint._save_last_checkpoint(trainer, checkpoint._monitor_candidates(trainer))
            return False

        return check_monitor_top_k

    def _wait(self, hook: Callable[[Trainer, LightningModule], None]) -> Callable[[Trainer, LightningModule], None]:
        def wait(trainer: Trainer, pl_module: LightningModule) -> None:
            if not self._closed():
                hook(trainer, pl_module)

        return wait
