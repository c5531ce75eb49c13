"""Calls: one way to run a module on an example input, which leaves the module as it was."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from textwrap import shorten
from typing import Any, Protocol, TypeAlias, runtime_checkable

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_compress.arguments import check_module

__all__ = [
    "ExampleInput",
    "as_arguments",
    "call",
    "check_example_input",
    "check_runs",
    "device_of",
    "entries_of",
    "error_of",
    "evaluating",
    "float_outputs",
    "leaves_in",
    "line_of",
    "on_device",
    "shapes_of",
    "tensors_in",
    "unwrapped",
]

_LONGEST = 100  # characters of a part of a message

ExampleInput: TypeAlias = "Tensor | tuple[Any, ...] | Mapping[str, Any]"
"""The input of ``forward``: one tensor, a tuple of positional or a mapping of keyword arguments.

A list, as from YAML, is a tuple of arguments. A ``forward`` that takes one list or one mapping gets it from a tuple:
``([a, b],)``, ``({"x": a},)``.
"""


@runtime_checkable
class _Movable(Protocol):
    """A batch of another library, which moves its tensors itself."""

    def to(self, device: torch.device) -> Any: ...


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
    return [tensor for tensor in tensors_in(call(module, example_input)) if tensor.is_floating_point()]


def tensors_in(output: Any) -> list[Tensor]:
    """The tensors in a batch or an output, in order; dataclasses and mappings of any class are searched.

    >>> tensors_in({"a": torch.ones(1), "b": [torch.zeros(1), "c"]})
    [tensor([1.]), tensor([0.])]
    """
    return [leaf for leaf in leaves_in(output) if isinstance(leaf, Tensor)]


def leaves_in(output: Any) -> list[Any]:
    """The values in a batch or an output that hold no others, in order, as :func:`tensors_in` searches it.

    >>> leaves_in({"a": 1, "b": [2.0, "c"]})
    [1, 2.0, 'c']
    """
    found: list[Any] = []
    for leaf in tree_leaves(output):
        entries = entries_of(leaf)
        found += [inner for entry in entries.values() for inner in leaves_in(entry)] if entries else [leaf]
    return found


def entries_of(value: Any) -> dict[Any, Any]:
    """The entries of a mapping, a dataclass or a named tuple; empty for everything else.

    >>> entries_of({"x": 1}), entries_of([1])
    ({'x': 1}, {})
    """
    if isinstance(value, Mapping):
        return dict(value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return dict(value._asdict()) if isinstance(value, tuple) and hasattr(value, "_asdict") else {}


def check_runs(module: nn.Module, example_input: ExampleInput) -> None:
    """Refuse an example on which ``forward`` does not run; ``module`` is left as it was.

    Args:
        module: run in evaluation mode.
        example_input: on the device of the module.

    Raises:
        ValueError: there is no ``forward``, it raises an error, or the example has no samples.
    """
    name, tensors = type(module).__name__, tensors_in(example_input)
    if tensors and not any(tensor.numel() for tensor in tensors):
        raise ValueError(f"need example_input with one sample or more, got {shapes_of(example_input)}")
    if error := error_of(module, example_input):
        if isinstance(error, NotImplementedError) and f'[{name}] is missing the required "forward"' in str(error):
            raise ValueError(
                f"need a module with a forward, got {name}, which has none: define forward(self, x), the computation "
                "that training_step calls"
            ) from error
        one = ", or example_input=(x,) for a forward that takes the whole mapping x"
        raise ValueError(
            f"need an example input that {name}.forward takes, got {shapes_of(example_input)}, which "
            f"raises {line_of(error)}: set module.example_input_array, or pass example_input"
            f"{one if isinstance(example_input, Mapping) else ''}"
        ) from error


def error_of(module: nn.Module, example_input: ExampleInput) -> Exception | None:
    """The error that ``forward`` raises on the example in evaluation mode, if any; ``module`` is left as it was."""
    try:
        # Compilation at this point would fix the graph before callbacks have attached their hooks.
        with evaluating(module), torch.compiler.set_stance("force_eager"):
            call(module, example_input)
    except Exception as error:
        return error
    return None


def shapes_of(example_input: Any) -> str:
    """The shapes in a batch or an example, as messages show them.

    >>> shapes_of({"ids": torch.zeros(2, 3), "labels": [torch.zeros(2), "a"]})
    '{ids: (2, 3), labels: [(2,), str]}'
    """
    if isinstance(example_input, Tensor):
        return str(tuple(example_input.shape))
    if named := entries_of(example_input):
        inner = ", ".join(f"{name}: {shapes_of(value)}" for name, value in named.items())
        return f"{{{shorten(inner, _LONGEST)}}}"
    if isinstance(example_input, tuple | list):
        return f"[{shorten(', '.join(map(shapes_of, example_input)), _LONGEST)}]"
    return type(example_input).__name__


def line_of(error: Exception) -> str:
    """The class and the first line of an error."""
    return shorten(f"{type(error).__name__}: {str(error).strip()}".splitlines()[0], _LONGEST)


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
    check_module(module=module)
    inner = getattr(module, "_orig_mod", module)
    return inner if isinstance(inner, nn.Module) else module


def on_device(example_input: Any, device: torch.device) -> Any:
    """The example with its tensors on ``device``."""
    return apply_to_collection(
        example_input,
        _Movable,
        lambda part: (part.detach() if isinstance(part, Tensor) else part).to(device),
        allow_frozen=True,
    )


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
