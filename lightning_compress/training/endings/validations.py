"""Validations of the model that a run leaves, where callbacks write weights after the last one.

``StochasticWeightAveraging`` swaps the weights when training ends, and a budget goes back to an earlier model. The
model is then validated once more. An average of the user's own that takes the place of the model in validations alone
is no such case: another validation would see it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lightning_compress.lightnings import CallbackBase, LightningModule, ModelCheckpoint, Trainer, of_each
from lightning_compress.processes import local, on_any_process
from lightning_compress.training.endings.hooks import after_callbacks

__all__ = ["FinalValidation", "Marks", "ValidatesLast", "marks"]

Marks: TypeAlias = Mapping[str, tuple[torch.Size, int]]
"""Name of a parameter or buffer -> its shape, and a number that identifies its bits."""

_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32}
_BLOCK = 1 << 22  # words whose products are in memory at a time


class FinalValidation:
    """Validates the model that training leaves, if the last validation saw other weights.

    A validation sees the weights at its first batch and at its last one: between the two, an average that takes the
    place of the model is compressed. After the last callback has ended the training, the weights are compared with
    both, and with those after the last epoch.

    Args:
        trainer: a Trainer whose ``fit`` has begun.
        module: the module in it.

    Attributes:
        required: whether weights that no validation saw call for another one in any case. By default they do if they
            were written after the last epoch, and if no steps were taken since the last validation.
    """

    def __init__(self, trainer: Trainer, module: LightningModule) -> None:
        self.required = False
        self._trainer, self._module = trainer, module
        self._seen: list[Marks] = []
        self._after: Marks = {}
        self._step = -1
        self.release = after_callbacks(trainer.strategy, "on_train_end", self._end)

    def first(self, batch_idx: int, dataloader_idx: int = 0) -> None:
        """A batch of a validation comes: note the weights, if it is the first."""
        if self._counts and batch_idx == dataloader_idx == 0:
            self._seen, self._step = [marks(self._module)], self._trainer.global_step

    def last(self) -> None:
        """A batch of a validation ends: note the weights, if it is the last."""
        if self._counts and self._trainer._evaluation_loop.batch_progress.is_last_batch:
            self._seen.append(marks(self._module))

    def epoch_ends(self) -> None:
        """Note the weights after an epoch that ended with a validation."""
        if self._step == self._trainer.global_step:
            self._after = marks(self._module)

    def saw(self, module: nn.Module) -> bool:
        """Whether the last validation saw these weights; those that have other names or shapes now do not count."""
        return any(_agree(seen, marks(module)) for seen in self._seen)

    @property
    def _counts(self) -> bool:
        return self._trainer.state.fn == "fit" and not self._trainer.sanity_checking

    def _end(self) -> None:
        module = self._module
        written = self._step == self._trainer.global_step and not _agree(self._after, marks(module))
        asked = bool(self._seen) and (self.required or written) and not self.saw(module)
        if any(on_any_process([torch.tensor(asked, device=module.device)])):
            _validate(self._trainer, module)


class ValidatesLast(CallbackBase):
    """A callback that may have the model validated once more when training ends; see :class:`FinalValidation`."""

    _final_validation: FinalValidation | None = None

    def watch_validations(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """``fit`` begins: note the weights of all validations to come."""
        self._final_validation = FinalValidation(trainer, pl_module)

    def validate_at_end(self) -> None:
        """Validate the model that ``fit`` leaves, unless the last validation saw it."""
        if self._final_validation is not None:
            self._final_validation.required = True

    def saw_last(self, module: nn.Module) -> bool:
        """Whether the last validation, if there was one, saw these weights."""
        return self._final_validation is None or self._final_validation.saw(module)

    def forget_validations(self) -> None:
        """``fit`` has ended, or failed: validate no more."""
        if self._final_validation is not None:
            self._final_validation.release()
        self._final_validation = None

    def on_validation_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, *place: Any) -> None:
        if self._final_validation is not None:
            self._final_validation.first(*place)

    def on_validation_batch_end(self, *_: Any) -> None:
        if self._final_validation is not None:
            self._final_validation.last()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._final_validation is not None:
            self._final_validation.epoch_ends()


def marks(module: nn.Module) -> Marks:
    """The marks of all weights and buffers of a module; of their local shards.

    >>> layer = nn.Linear(2, 2)
    >>> before = marks(layer)
    >>> _ = layer.weight.data.neg_()
    >>> [name for name, mark in marks(layer).items() if mark != before[name]]
    ['weight']
    """
    tensors = {name: local(t.detach()) for name, t in chain(module.named_parameters(), module.named_buffers())}
    sums = [_sum(tensor).cpu() for tensor in tensors.values()]
    numbers = torch.stack(sums).tolist() if sums else []
    return {name: (tensor.shape, number) for (name, tensor), number in zip(tensors.items(), numbers, strict=True)}


def _sum(tensor: Tensor) -> Tensor:
    """The sum of the words of a tensor, each times an odd number that depends on its place, modulo 2^64."""
    words = tensor.contiguous().flatten().view(_WORDS[min(tensor.element_size(), 4)])
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for start in range(0, len(words), _BLOCK):
        block = words[start : start + _BLOCK]
        total += (block * (2 * torch.arange(start, start + len(block), device=tensor.device) + 1)).sum()
    return total


def _agree(some: Marks, others: Marks) -> bool:
    """Whether the weights that both have are the same; those of another shape are other weights."""
    common = [name for name, (shape, _) in some.items() if name in others and others[name][0] == shape]
    return all(some[name] == others[name] for name in common)


def _validate(trainer: Trainer, module: LightningModule) -> None:
    """Validate as the Trainer does after the last batch; checkpoints of that step are written again."""
    callbacks, loop = trainer.callbacks, trainer.fit_loop  # type: ignore[attr-defined]
    checkpoints = [callback for callback in callbacks if isinstance(callback, ModelCheckpoint)]
    for checkpoint in checkpoints:
        checkpoint._last_global_step_saved = -1
    # The progress bars are closed.
    trainer.callbacks = [one for one in callbacks if not isinstance(one, of_each("callbacks.ProgressBar"))]  # type: ignore[attr-defined]
    trainer.validating = True
    loop.epoch_progress.current.completed -= 1  # names of files and numbers in logs are those of the last epoch
    loop.epoch_loop._batches_that_stepped -= 1
    try:
        loop.epoch_loop.val_loop.run()
        trainer.training = True
        for checkpoint in checkpoints:
            checkpoint.on_train_epoch_end(trainer, module)
    finally:
        trainer.training = True
        loop.epoch_progress.current.completed += 1
        loop.epoch_loop._batches_that_stepped += 1
        trainer.callbacks = callbacks  # type: ignore[attr-defined]
