"""Inputs: an example to trace a model with, taken from its training data."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, IterableDataset

__all__ = ["first_examples"]


def first_examples(loaders: Any, module: nn.Module) -> Any:
    """Input of ``module`` from the first two examples of its training data.

    They are taken so that the loader's order, workers and state stay as they are: a DataLoader's dataset is looked up
    by index, and another loader, if it carries a state, is given it back.

    Args:
        loaders: a loader, or a collection of loaders, the first of which counts.
        module: of a batch that is a mapping, ``module.forward`` gets the entries that it has arguments for; of a
            sequence, the first.

    Raises:
        ValueError: the data can be read in neither way.
    """
    batch = _first_batch(tree_leaves(loaders)[0])
    if isinstance(batch, Mapping):
        accepted = inspect.signature(module.forward).parameters
        return {key: value for key, value in batch.items() if key in accepted}
    return batch[0] if isinstance(batch, Sequence) else batch


def _first_batch(loader: Any) -> Any:
    if isinstance(loader, DataLoader):
        if not isinstance(loader.dataset, IterableDataset) and loader.batch_sampler is not None:
            dataset: Any = loader.dataset
            return loader.collate_fn([dataset[i] for i in range(min(2, len(dataset)))])
    elif hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
        state = copy.deepcopy(loader.state_dict())
        batch = next(iter(loader))
        loader.load_state_dict(state)
        return tree_map(lambda leaf: leaf[:2] if isinstance(leaf, Tensor) else leaf, batch)
    raise ValueError(
        "need an example input to find the channels of the model, got training data that cannot be looked up without "
        "taking it from the run: set module.example_input_array or give example_input"
    )
