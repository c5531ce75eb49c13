"""Progress of a run: its length, the fraction that is done, and the pauses in it."""

from __future__ import annotations

import math
from typing import Any

from lightning_compress.lightnings import LightningModule, Trainer, of_each

__all__ = ["Progress"]


class Progress:
    """Measures a run in optimizer steps; under manual optimization in batches too, which may take any number of steps.

    A run has ended when it has taken ``max_steps`` steps or ``max_epochs`` epochs: the larger of the two fractions
    counts.

    Args:
        trainer: the Trainer.
        module: the LightningModule in it.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        self._trainer = trainer
        self._module = module
        self._steps, self._batches = 1.0, math.inf  # of the whole run
        self.started = False
        """Whether the run trains, or has trained."""

    def start(self) -> None:
        """Read the length of the run, when the Trainer knows its data loader.

        Raises:
            ValueError: the run has no end, or it ends at a time.
        """
        if any(timer.time_remaining() is not None for timer in self._callbacks("callbacks.Timer")):
            raise ValueError(
                "need a run of known length to follow a schedule, got one that max_time of the Trainer, or a Timer, "
                "may end at any step: leave the limit of time out, and set max_steps or max_epochs to a number that "
                "fits in this time"
            )
        self.started = True
        batches, limit = float(self._trainer.num_training_batches), self._trainer.max_epochs
        epochs = math.inf if limit is None or limit < 0 else float(limit)
        if self._module.automatic_optimization:
            self._steps, self._batches = self._steps_in(batches, epochs), math.inf
        else:
            self._steps, self._batches = math.inf, batches * epochs
        if self._trainer.max_steps >= 0:
            self._steps = min(self._steps, self._trainer.max_steps)
        if not 0 < min(self._steps, self._batches) < math.inf:
            raise ValueError(
                "need a run of known length to follow a schedule, got an infinite one: set max_steps, or max_epochs "
                "and limit_train_batches, a number of batches, in the Trainer, or give it a data loader with a length"
            )

    @property
    def steps(self) -> int:
        """Number of optimizer steps that the run has taken."""
        return int(self._trainer.global_step)

    def fraction(self) -> float:
        """Fraction of the run that is done, in [0, 1]."""
        total: Any = self._trainer.fit_loop.epoch_loop.batch_progress.total
        batches = float(total.processed)
        return min(1.0, max(self._trainer.global_step / self._steps, batches / self._batches))

    def pauses(self) -> bool:
        """Whether training pauses after the present batch, to validate or to end."""
        epoch, data = self._trainer.fit_loop.epoch_loop, self._trainer.fit_loop._data_fetcher
        return epoch._is_training_done or (data is not None and epoch._should_check_val_fx(data))

    def ends(self) -> bool:
        """Whether the run ends with the present validation."""
        return self.fraction() == 1.0 or bool(self._trainer.should_stop and self._trainer.fit_loop._can_stop_early)

    def _steps_in(self, batches: float, epochs: float) -> float:
        """Optimizer steps of some epochs: one for every few batches that are accumulated, and for the last ones."""
        if math.isinf(batches * epochs):
            return math.inf
        if schedulers := self._callbacks("callbacks.GradientAccumulationScheduler"):
            accumulated = map(schedulers[-1].get_accumulate_grad_batches, range(int(epochs)))
            return float(sum(math.ceil(batches / number) for number in accumulated))
        return epochs * math.ceil(batches / self._trainer.accumulate_grad_batches)

    def _callbacks(self, path: str) -> list[Any]:
        """The callbacks of the Trainer of a class of Lightning, by its dotted path."""
        return [callback for callback in self._trainer.callbacks if isinstance(callback, of_each(path))]  # type: ignore[attr-defined]
