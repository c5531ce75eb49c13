"""Inputs: an example to trace a model with, taken from its training data."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, IterableDataset

__all__ = ["first_examples"]


def first_examples(loaders: Any, module: nn.Module) -> Any:
    """Input of ``module`` from the first two examples of its training data.

    They are looked up past the loader, so that its order, its workers and its state stay as they are.

    Args:
        loaders: a DataLoader, or a collection of them.
        module: of a batch that is a mapping, ``module.forward`` gets the entries that it has arguments for; of a
            sequence, the first.

    Raises:
        ValueError: the data cannot be looked up by index.
    """
    found = [leaf for leaf in tree_leaves(loaders) if isinstance(leaf, DataLoader)]
    if not found or isinstance(found[0].dataset, IterableDataset) or found[0].batch_sampler is None:
        raise ValueError(
            "need an example input to find the channels of the model, got training data that cannot be looked up by "
            "index: set module.example_input_array or give example_input"
        )
    dataset: Any = found[0].dataset
    batch = found[0].collate_fn([dataset[i] for i in range(min(2, len(dataset)))])
    if isinstance(batch, Mapping):
        accepted = inspect.signature(module.forward).parameters
        return {key: value for key, value in batch.items() if key in accepted}
    return batch[0] if isinstance(batch, Sequence) else batch
