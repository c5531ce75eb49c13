"""Modes: running a module for a look at it, and leaving it as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["ExampleInput", "arguments", "call", "device_of", "evaluating", "on_device", "unwrapped"]

ExampleInput: TypeAlias = "Tensor | tuple[Any, ...] | Mapping[str, Any]"
"""What ``forward`` takes: one tensor, a tuple of positional or a mapping of keyword arguments."""


def call(module: nn.Module, example_input: ExampleInput) -> Any:
    """``module`` of the example: a tuple as positional, a mapping as keyword arguments.

    >>> call(nn.Identity(), (torch.tensor(2.0),))
    tensor(2.)
    """
    args, kwargs = arguments(example_input)
    return module(*args, **kwargs)


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
