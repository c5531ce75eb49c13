"""Loaders for data that fits in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["TensorLoader"]


class TensorLoader:
    """Batches of tensors that lie in memory: one index operation per batch, no Python loop over examples.

    The order depends on ``seed`` and the epoch alone, and the loader carries its position in a checkpoint, so that a
    run that is killed at any step resumes with the batch that comes next. It serves one process: it does not split
    the data over several.

    Args:
        tensors: of equal first dimension, the examples; a batch is a tuple with a part of each.
        batch_size: examples in a batch; the last batch of an epoch may be smaller.
        shuffle: draw a new order each epoch.
        seed: of the orders.

    Raises:
        ValueError: the tensors have different lengths, or ``batch_size`` is below 1.

    >>> loader = TensorLoader(torch.arange(5), batch_size=2)
    >>> [batch.tolist() for batch, in loader]
    [[0, 1], [2, 3], [4]]
    """

    def __init__(self, *tensors: Tensor, batch_size: int, shuffle: bool = False, seed: int = 0) -> None:
        if len({len(tensor) for tensor in tensors}) != 1:
            raise ValueError(f"need tensors of one length, got lengths {[len(tensor) for tensor in tensors]}")
        if batch_size < 1:
            raise ValueError(f"need batch_size >= 1, got batch_size={batch_size}")
        self.tensors = tensors
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self._epoch = 0
        self._batch = 0  # the batch that comes next
        self._resumed = False

    def __len__(self) -> int:
        return -(-len(self.tensors[0]) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        if not self._resumed and self._batch > 0:  # the last epoch was left before its end
            self._epoch, self._batch = self._epoch + 1, 0
        self._resumed = False
        batches = torch.split(self._order(), self.batch_size)
        for batch in batches[self._batch :]:
            # The state is that of after this batch: the consumer works on it while a checkpoint is written.
            self._batch += 1
            if self._batch == len(batches):
                self._epoch, self._batch = self._epoch + 1, 0
            yield tuple(tensor[batch] for tensor in self.tensors)

    def state_dict(self) -> dict[str, int]:
        """Epoch and batch that come next."""
        return {"epoch": self._epoch, "batch": self._batch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where ``state`` was taken."""
        self._epoch, self._batch, self._resumed = state["epoch"], state["batch"], True

    def _order(self) -> Tensor:
        if not self.shuffle:
            return torch.arange(len(self.tensors[0]))
        # Runs of different seeds share no epoch's order; the generator takes 32 bits only.
        generator = torch.Generator().manual_seed(100_003 * self.seed + self._epoch)
        return torch.randperm(len(self.tensors[0]), generator=generator)
