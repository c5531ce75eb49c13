"""Example inputs: an example from the data, and one way to run a module on it that leaves the module as it was."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, IterableDataset

__all__ = [
    "ExampleInput",
    "as_arguments",
    "call",
    "check_example_input",
    "device_of",
    "evaluating",
    "first_examples",
    "first_samples",
    "float_outputs",
    "input_from",
    "on_device",
    "unwrapped",
]

ExampleInput: TypeAlias = "Tensor | tuple[Any, ...] | Mapping[str, Any]"
"""The input of ``forward``: one tensor, a tuple of positional or a mapping of keyword arguments.

A list, as from YAML, is a tuple of arguments. A ``forward`` that takes one list gets it from a tuple: ``([a, b],)``.
"""


def call(module: nn.Module, example_input: ExampleInput) -> Any:
    """Run ``module`` on the example: a tuple as positional, a mapping as keyword arguments.

    >>> call(nn.Identity(), (torch.tensor(2.0),))
    tensor(2.)
    """
    args, kwargs = as_arguments(example_input)
    return module(*args, **kwargs)


def float_outputs(module: nn.Module, example_input: ExampleInput) -> list[Tensor]:
    """The floating-point tensors that ``module`` returns for the example, in order.

    >>> float_outputs(nn.Identity(), (torch.tensor(2.0),))
    [tensor(2.)]
    """
    leaves = tree_leaves(call(module, example_input))
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def as_arguments(example_input: ExampleInput) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example as positional and keyword arguments.

    Raises:
        TypeError: the example is neither a tensor, nor a tuple, list or mapping.

    >>> as_arguments([1, 2])
    ((1, 2), {})
    >>> as_arguments({"ids": 1})
    ((), {'ids': 1})
    """
    check_example_input(example_input)
    if isinstance(example_input, Mapping):
        return (), dict(example_input)
    return (example_input,) if isinstance(example_input, Tensor) else tuple(example_input), {}


def check_example_input(example_input: object) -> None:
    """Refuse an example that is neither a tensor, nor a tuple, list or mapping of arguments.

    Raises:
        TypeError: the example is of another kind.

    >>> check_example_input("images")
    Traceback (most recent call last):
    TypeError: need example_input as a tensor, a tuple of positional or a mapping of keyword arguments, got 'images'
    """
    if not isinstance(example_input, Tensor | Mapping | tuple | list):
        shown = type(example_input).__name__ if hasattr(example_input, "__array__") else repr(example_input)
        raise TypeError(
            f"need example_input as a tensor, a tuple of positional or a mapping of keyword arguments, got {shown}"
            + (": write torch.from_numpy(...)" if hasattr(example_input, "__array__") else "")
        )


def device_of(module: nn.Module) -> torch.device:
    """Device of the first parameter; the CPU if there is none."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def unwrapped(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` wraps, or the module itself.

    Raises:
        TypeError: the argument is not a module.
    """
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"need module as a torch.nn.Module, got {type(module).__name__}: write a state dict by archive.save_archive"
        )
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
    """Evaluation mode without gradients; on exit, modes, buffers and random generators are as before.

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


def input_from(batch: Any, module: nn.Module) -> Any:
    """The part of a batch that is the input of ``module``.

    In a mapping these are the entries that ``forward`` has arguments for; of a sequence, the first element. Nested
    collections are searched until ``forward`` accepts the arguments.

    >>> input_from([torch.zeros(2, 3), torch.zeros(2)], nn.Linear(3, 1)).shape
    torch.Size([2, 3])
    """
    if isinstance(batch, Mapping):
        accepted = inspect.signature(module.forward).parameters
        anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
        named = {name: value for name, value in batch.items() if anything or name in accepted}
        return named or input_from(next(iter(batch.values()), None), module)
    if not isinstance(batch, tuple | list) or not batch:
        return batch
    first = batch[0]
    return input_from(first, module) if isinstance(first, Mapping) or not _accepts(module, first) else first


def first_samples(example_input: Any, count: int) -> Any:
    """The first ``count`` samples: every tensor's first dimension is the batch.

    >>> first_samples({"ids": torch.zeros(5, 3)}, 2)["ids"].shape
    torch.Size([2, 3])
    """
    return tree_map(lambda leaf: leaf[:count] if isinstance(leaf, Tensor) and leaf.ndim else leaf, example_input)


def first_examples(loaders: Any, module: nn.Module) -> Any:
    """Input of ``module`` from the first two examples of its training data.

    The loader's order, workers and state stay as they are: a DataLoader's dataset is looked up by index, and another
    loader with a state gets that state back.

    Args:
        loaders: a loader, or a collection of loaders, of which the first is read.
        module: its ``forward`` takes the input; see :func:`input_from`.

    Raises:
        ValueError: the data cannot be read in either way.
    """
    return input_from(_first_batch(tree_leaves(loaders)[0]), module)


def _accepts(module: nn.Module, values: Any) -> bool:
    """Whether ``forward`` takes one value, or a tuple or list of them as its positional arguments."""
    try:
        inspect.signature(module.forward).bind(*(values if isinstance(values, tuple | list) else (values,)))
    except TypeError:
        return False
    return True


def _first_batch(loader: Any) -> Any:
    if isinstance(loader, DataLoader):
        if not isinstance(loader.dataset, IterableDataset) and loader.batch_sampler is not None:
            dataset: Any = loader.dataset
            return loader.collate_fn([dataset[i] for i in range(min(2, len(dataset)))])
    elif hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict"):
        state = copy.deepcopy(loader.state_dict())
        batch = next(iter(loader))
        loader.load_state_dict(state)
        return first_samples(batch, 2)
    raise ValueError(
        "need an example input to find the channels of the model, got training data that cannot be read without "
        "taking samples from the run: set module.example_input_array, or pass example_input"
    )
