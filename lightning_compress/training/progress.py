"""Progress of a run: its length, the fraction that is done, and the pauses in it."""

from __future__ import annotations

import math

from lightning_compress.lightnings import LightningModule, Trainer

__all__ = ["Progress"]


class Progress:
    """Measures a run in optimizer steps; in batches under manual optimization without ``max_steps``.

    Under manual optimization a batch may take any number of optimizer steps.

    Args:
        trainer: the Trainer.
        module: the LightningModule in it.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        self._trainer = trainer
        self._module = module
        self._length = 1.0

    def start(self) -> None:
        """Read the length of the run, when the Trainer knows its data loader.

        Raises:
            ValueError: the run has no end.
        """
        length = self._trainer.estimated_stepping_batches
        if not 0 < length < math.inf:
            raise ValueError(
                "need a run of known length to follow a schedule, got an infinite one: set max_steps, or max_epochs "
                "and limit_train_batches, a number of batches, in the Trainer, or give it a data loader with a length"
            )
        self._length = float(length)

    def fraction(self) -> float:
        """Fraction of the run that is done, in [0, 1]."""
        if self._module.automatic_optimization or self._trainer.max_steps > -1:
            return min(1.0, self._trainer.global_step / self._length)
        return min(1.0, (self._trainer.fit_loop.total_batch_idx + 1) / self._length)

    def pauses(self) -> bool:
        """Whether training pauses after the present batch, to validate or to end."""
        epoch, data = self._trainer.fit_loop.epoch_loop, self._trainer.fit_loop._data_fetcher
        return epoch._is_training_done or (data is not None and epoch._should_check_val_fx(data))
