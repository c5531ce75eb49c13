"""Fits that take turns, each timed over its second epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median

from lightning.pytorch import Callback, LightningModule, Trainer

__all__ = ["Stopwatch", "in_turns", "median_ratio"]


class Stopwatch(Callback):
    """Times the last epoch of a fit.

    Attributes:
        cpu: seconds of the process.
        wall: seconds on the wall.
    """

    cpu = wall = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.process_time(), time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.cpu, self.wall = time.process_time() - self._began[0], time.perf_counter() - self._began[1]


def in_turns(fits: Mapping[str, Callable[[], Stopwatch]], turns: int) -> dict[str, list[Stopwatch]]:
    """Run every fit ``turns`` times, A B C A B C; each returns its stopwatch."""
    taken: dict[str, list[Stopwatch]] = {name: [] for name in fits}
    for _ in range(turns):
        for name, fit in fits.items():
            taken[name].append(fit())
    return taken


def median_ratio(times: list[float], reference: list[float]) -> float:
    """Median of the ratios of one turn."""
    return median(mine / theirs for mine, theirs in zip(times, reference, strict=True))
