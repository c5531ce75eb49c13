"""Loaders for data that fits in memory."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["Order", "TensorLoader"]


class TensorLoader:
    """Batches of tensors that lie in memory: one index operation per batch, no Python loop over examples.

    The order depends only on ``seed`` and the epoch, and a checkpoint holds the position of the loader. So a run that
    is killed at any step resumes with the next batch. The loader serves one process: it does not split the data over
    several.

    Args:
        tensors: tensors of one length, the number of examples; a batch is a tuple with a slice of each.
        batch_size: examples in a batch; the last batch of an epoch may be smaller.
        shuffle: draw a new order for each epoch.
        seed: seed of the orders.

    Raises:
        ValueError: the tensors have different lengths, or ``batch_size`` is below 1.

    >>> loader = TensorLoader(torch.arange(5), batch_size=2)
    >>> [batch.tolist() for batch, in loader]
    [[0, 1], [2, 3], [4]]
    """

    batch_sampler = None  # a Trainer reads this attribute of each loader that has a sampler

    def __init__(self, *tensors: Tensor, batch_size: int, shuffle: bool = False, seed: int = 0) -> None:
        if len({len(tensor) for tensor in tensors}) != 1:
            raise ValueError(f"need tensors of one length, got lengths {[len(tensor) for tensor in tensors]}")
        if batch_size < 1:
            raise ValueError(f"need batch_size >= 1, got batch_size={batch_size}")
        self.tensors = tensors
        self.batch_size = batch_size
        self.sampler = Order(len(tensors[0]), shuffle, seed)
        self._next = 0  # the next batch
        self._first = 0  # the first batch of the next iteration

    def __len__(self) -> int:
        return -(-len(self.tensors[0]) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        first, self._first = self._first, 0
        batches = torch.split(self.sampler.indices(), self.batch_size)
        for number in range(first, len(batches)):
            # A checkpoint that is written while the consumer works on this batch resumes with the one after it.
            self._next = (number + 1) % len(batches)
            yield tuple(tensor[batches[number]] for tensor in self.tensors)

    def state_dict(self) -> dict[str, int]:
        """The next batch; the Trainer stores the epoch."""
        return {"batch": self._next}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Begin the next iteration at the position of ``state``."""
        self._first = state["batch"]


class Order:
    """The order of the examples in an epoch.

    Args:
        length: number of examples.
        shuffle: draw a random order for each epoch.
        seed: seed of the random orders; different seeds give different orders.
    """

    def __init__(self, length: int, shuffle: bool, seed: int) -> None:
        self.length = length
        self.shuffle = shuffle
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Go to an epoch; a Trainer calls this on the ``sampler`` of its loader before each."""
        self.epoch = epoch

    def indices(self) -> Tensor:
        """The examples ``(length,)`` in the order of this epoch."""
        if not self.shuffle:
            return torch.arange(self.length)
        # The generator takes 32 bits, so the seed cannot simply fill the upper half of 64.
        generator = torch.Generator().manual_seed(100_003 * self.seed + self.epoch)
        return torch.randperm(self.length, generator=generator)
