"""Batches: the example input that a batch of training data holds for a module."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader, IterableDataset

from lightning_compress.example_inputs.calls import (
    ExampleInput,
    as_arguments,
    entries_of,
    error_of,
    line_of,
    shapes_of,
)

__all__ = [
    "cycled_samples",
    "example_in",
    "first_batch",
    "first_examples",
    "first_samples",
    "readings",
    "small_example_in",
]

_SHOWN = 3  # number of readings that an error names
_ENOUGH = 2  # samples to trace and measure a module with


def example_in(batch: Any, module: nn.Module) -> ExampleInput:
    """The example input of ``module`` in a batch: the first of its :func:`readings` on which ``forward`` runs.

    Args:
        batch: of the training data, on the device of the module.
        module: it is run in evaluation mode, and left as it was.

    Raises:
        ValueError: ``forward`` runs on none of them.

    >>> import torch
    >>> example_in([torch.zeros(2, 3), torch.zeros(2)], nn.Linear(3, 1)).shape
    torch.Size([2, 3])
    """
    errors: dict[str, str] = {}
    for example in readings(batch, module):
        error = error_of(module, example)
        if error is None:
            return example
        errors.setdefault(shapes_of(example), line_of(error))
    tried = "; ".join(f"{shapes} raises {error}" for shapes, error in list(errors.items())[:_SHOWN])
    raise ValueError(
        f"need a batch that holds the input of {type(module).__name__}.forward, got {shapes_of(batch)} "
        f"({tried or 'forward takes other arguments'}): set module.example_input_array, or pass example_input"
    )


def small_example_in(batch: Any, module: nn.Module) -> ExampleInput:
    """The example input of ``module`` in the first two samples of a batch; in all of it if these make no batch.

    Args:
        batch: as for :func:`example_in`.
        module: the same.

    Raises:
        ValueError: ``forward`` runs on neither.
    """
    with suppress(Exception):  # a batch of another library may not take the cut
        return example_in(first_samples(batch, _ENOUGH), module)
    return example_in(batch, module)


def readings(batch: Any, module: nn.Module) -> Iterator[ExampleInput]:
    """The example inputs that a batch may hold, those first that most training steps pass on.

    These are the batch's first element, the batch, and the values in it, outermost first. Each of them is a reading as
    keyword arguments, if it has entries with names that ``forward`` takes; as the only argument; and, of a sequence,
    its first elements as positional arguments. Readings that the signature of ``forward`` does not take are left out.

    >>> [len(example) for example in readings([1, 2, 3], nn.Bilinear(1, 1, 1))]
    [2]
    """
    takes = _signature(module)
    for value in _values(batch):
        for example in _readings_of(value, takes):
            if takes is None or _binds(takes, example):
                yield example


def first_samples(example_input: Any, count: int) -> Any:
    """The first ``count`` samples: every tensor's first dimension is the batch.

    >>> import torch
    >>> first_samples({"ids": torch.zeros(5, 3)}, 2)["ids"].shape
    torch.Size([2, 3])
    """
    return apply_to_collection(
        example_input, Tensor, lambda tensor: tensor[:count] if tensor.ndim else tensor, allow_frozen=True
    )


def cycled_samples(example_input: Any, count: int) -> Any:
    """``count`` samples, those of the example from the first to the last, over and over.

    >>> import torch
    >>> cycled_samples(torch.tensor([1, 2]), 5)
    tensor([1, 2, 1, 2, 1])
    """
    return apply_to_collection(
        example_input,
        Tensor,
        lambda tensor: tensor[torch.arange(count, device=tensor.device) % len(tensor)] if tensor.ndim else tensor,
        allow_frozen=True,
    )


def first_batch(trainer: Any) -> Any:
    """The first two training examples of a Trainer whose ``fit`` begins, as its training step gets them.

    None if they cannot be read yet, or not without taking samples from the run.
    """
    with suppress(Exception):  # data that opens later says itself if it is broken
        batch = first_examples(trainer.fit_loop._data_source.dataloader())
        if batch is not None:
            return trainer.strategy.batch_to_device(trainer.precision_plugin.convert_input(batch))
    return None


def first_examples(loaders: Any) -> Any:
    """A batch of the first two examples of the training data; None if they cannot be looked up by index.

    The loader's order and workers stay as they are.

    Args:
        loaders: a loader, or a collection of loaders, of which the first is read.
    """
    loader = tree_leaves(loaders)[0]
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset) or not loader.batch_sampler:
        return None
    dataset: Any = loader.dataset
    return loader.collate_fn([dataset[i] for i in range(min(_ENOUGH, len(dataset)))])


def _values(batch: Any) -> Iterator[Any]:
    """The first element of a batch, the batch, and then the same of each value in it."""
    inner = list(batch) if isinstance(batch, tuple | list) else list(entries_of(batch).values())
    if inner and isinstance(batch, tuple | list):
        yield inner[0]
    yield batch
    for value in inner:
        yield from _values(value)


def _readings_of(value: Any, takes: inspect.Signature | None) -> Iterator[ExampleInput]:
    if isinstance(value, Tensor):
        yield value
        return
    if named := {name: entry for name, entry in entries_of(value).items() if _takes_name(takes, name)}:
        yield named
    yield (value,)
    if isinstance(value, tuple | list):
        for count in range(2, len(value) + 1):
            yield tuple(value[:count])


def _signature(module: nn.Module) -> inspect.Signature | None:
    with suppress(TypeError, ValueError):  # code that is built in has none
        return inspect.signature(module.forward)
    return None


def _takes_name(takes: inspect.Signature | None, name: object) -> bool:
    if takes is None or not isinstance(name, str):
        return False
    return name in takes.parameters or any(p.kind is p.VAR_KEYWORD for p in takes.parameters.values())


def _binds(takes: inspect.Signature, example: ExampleInput) -> bool:
    args, kwargs = as_arguments(example)
    try:
        takes.bind(*args, **kwargs)
    except TypeError:
        return False
    return True
