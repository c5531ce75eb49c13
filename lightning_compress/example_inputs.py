"""Example inputs: an example from the data, and a module run on it without a trace left behind."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, IterableDataset

__all__ = [
    "ExampleInput",
    "arguments",
    "call",
    "device_of",
    "evaluating",
    "first_examples",
    "float_outputs",
    "on_device",
    "unwrapped",
]

ExampleInput: TypeAlias = "Tensor | tuple[Any, ...] | Mapping[str, Any]"
"""What ``forward`` takes: one tensor, a tuple of positional or a mapping of keyword arguments."""


def call(module: nn.Module, example_input: ExampleInput) -> Any:
    """``module`` of the example: a tuple as positional, a mapping as keyword arguments.

    >>> call(nn.Identity(), (torch.tensor(2.0),))
    tensor(2.)
    """
    args, kwargs = arguments(example_input)
    return module(*args, **kwargs)


def float_outputs(module: nn.Module, example_input: ExampleInput) -> list[Tensor]:
    """The floating-point tensors that ``module`` returns for the example, in order.

    >>> float_outputs(nn.Identity(), (torch.tensor(2.0),))
    [tensor(2.)]
    """
    leaves = tree_leaves(call(module, example_input))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def arguments(example_input: ExampleInput) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example as positional and keyword arguments; a list, as from YAML, is a tuple.

    Raises:
        TypeError: it is something else.

    >>> arguments({"ids": 1})
    ((), {'ids': 1})
    """
    if isinstance(example_input, Tensor):
        return (example_input,), {}
    if isinstance(example_input, Mapping):
        return (), dict(example_input)
    if isinstance(example_input, tuple | list):
        return tuple(example_input), {}
    raise TypeError(
        "need example_input as a tensor, a tuple of positional or a mapping of keyword arguments, "
        f"got {type(example_input).__name__}"
    )


def device_of(module: nn.Module) -> torch.device:
    """Where the first parameter is; the CPU if there is none."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def unwrapped(module: nn.Module) -> nn.Module:
    """The module itself, where ``torch.compile(module)`` is given.

    Raises:
        TypeError: it is no module.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(f"need a module, got {type(module).__name__}; archive.save_archive writes a state dict")
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, nn.Module) else module


def on_device(example_input: Any, device: torch.device) -> Any:
    """The example with its tensors on ``device``."""
    if isinstance(example_input, Tensor):
        return example_input.detach().to(device)
    if isinstance(example_input, Mapping):
        return {name: on_device(value, device) for name, value in example_input.items()}
    if isinstance(example_input, tuple | list):
        return type(example_input)(on_device(value, device) for value in example_input)
    return example_input


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards modes, buffers and random generators are what they were.

    >>> dropout = nn.Dropout()
    >>> with evaluating(dropout):
    ...     dropout.training
    False
    >>> dropout.training
    True
    """
    modes = {part: part.training for part in module.modules()}
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers()]
    devices = sorted({p.device.index or 0 for p in module.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            module.eval()
            yield
    finally:
        for part, training in modes.items():
            part.training = training
        for buffer, value in buffers:
            buffer.detach().copy_(value)


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
