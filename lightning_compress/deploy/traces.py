"""Traces: the computation of a module, with a free batch size, as torch.export gives it."""

from __future__ import annotations

import copy
import inspect
import re
import traceback
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError, UserErrorType
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.utils import _pytree as pytree

from lightning_compress.example_inputs import (
    ExampleInput,
    as_arguments,
    call,
    entries_of,
    first_samples,
    line_of,
    shapes_of,
)

__all__ = ["OfTensors", "check_fixed_values", "trace", "without_origin"]

_LIBRARIES = (Path(torch.__file__).parent, Path(__file__).parents[1])


def trace(module: nn.Module, example: ExampleInput, largest_batch: int | None = None) -> ExportedProgram:
    """Trace ``module``; the first dimension of every tensor is one free batch size.

    Args:
        module: in evaluation mode.
        example: input of ``forward``.
        largest_batch: bound of the batch size; with 1 it is fixed.

    Raises:
        ValueError: ``forward`` depends on the batch size of the example, or torch.export does not follow it.
    """
    shapes = shapes_of(example)
    if largest_batch is not None:
        example = first_samples(example, 1)
    if largest_batch != 1:  # torch.export takes a batch of one for a constant of the model
        example = pytree.tree_map(_doubled, example)
    _check_runs_resized(module, example, shapes)
    name, (args, kwargs) = type(module).__name__, as_arguments(example)
    module = _of_plain_outputs(_spelled_out(module, kwargs), args, kwargs)
    named = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    free = None if largest_batch == 1 else {0: Dim("batch", min=1, max=largest_batch)}
    dynamic = pytree.tree_map(lambda x: free if isinstance(x, Tensor) and x.ndim else None, named)
    try:
        return torch.export.export(module, args, kwargs, dynamic_shapes=dynamic)
    except Exception as error:  # of many kinds
        raise ValueError(_text_of(error, f"{name}.forward")) from error


def check_fixed_values(program: ExportedProgram, name: str) -> None:
    """Refuse a program with numbers or sizes that the values of tensors give, for a runtime that has none.

    Args:
        program: the trace, with its origin.
        name: of the module, for the error.

    Raises:
        ValueError: there is one; the error names its line in ``forward``.
    """
    for node in program.graph.nodes:
        if node.meta.get("unbacked_bindings"):
            frames = re.findall(r'File "([^"]+)", line (\d+)', node.meta.get("stack_trace") or "")
            own = [(int(line), Path(file)) for file, line in frames if not _is_library(Path(file))]
            place = _place(*own[-1]) if own else ""
            raise ValueError(
                f"need a forward whose numbers and sizes do not depend on the values of tensors, got {name}.forward, "
                f"which takes one from them{place}: keep a number as a tensor, as x.max() in place of x.max().item(), "
                "and a size fixed, or write .onnx or .pt2"
            )


def without_origin(program: ExportedProgram) -> ExportedProgram:
    """``program`` itself, with zeros as its example, and without paths and lines of source code."""
    args, kwargs = program.example_inputs or ((), {})
    program.example_inputs = pytree.tree_map_only(Tensor, torch.zeros_like, (args, kwargs))
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, GraphModule) else ():
            for note in ("stack_trace", "from_node"):
                node.meta.pop(note, None)
    return program


class OfTensors(nn.Module):
    """The graph of a program as a module of tensors alone, in their order; its other arguments are constants.

    Args:
        module: the graph, as ``program.module()`` gives it.
        program: the trace that it comes from.
    """

    def __init__(self, module: nn.Module, program: ExportedProgram) -> None:
        super().__init__()
        self.module = module
        self._leaves, self._tree = pytree.tree_flatten(program.example_inputs)

    @property
    def example(self) -> tuple[Tensor, ...]:
        """The example of the program."""
        return tuple(leaf for leaf in self._leaves if isinstance(leaf, Tensor))

    def forward(self, *tensors: Tensor) -> Any:
        rest = iter(tensors)
        leaves = [next(rest) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._tree)
        return self.module(*args, **kwargs)


def _check_runs_resized(module: nn.Module, example: ExampleInput, given: str) -> None:
    try:
        call(module, example)
    except Exception as error:  # of many kinds
        raise ValueError(
            "need example_input with the batch as first dimension of every tensor, and a forward that takes any batch "
            f"size, got {given}, which runs, and {shapes_of(example)}, which raises {line_of(error)}: add the "
            "dimension, as x.unsqueeze(0), or take the size in forward as x.shape[0]"
        ) from error


def _text_of(error: Exception, name: str) -> str:
    """The reason why torch.export does not follow ``forward``, its place in the code, and what helps."""
    if isinstance(error, UserError) and error.error_type == UserErrorType.CONSTRAINT_VIOLATION:
        return (
            f"need a forward that takes any batch size, got {name}, which is bound to that of the example: take the "
            "size as x.shape[0], not as len(x) or int(...), and compare it with no number"
        )
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_library(Path(frame.filename))]
    place = _place(frames[-1].lineno, Path(frames[-1].filename)) if frames else ""
    if isinstance(error, GuardOnDataDependentSymNode):
        return (
            f"need a forward whose steps do not depend on the values of tensors, got {name}, which decides by "
            f"them{place}: write torch.where(condition, a, b) in place of if, or decide outside forward"
        )
    return (
        f"need a forward that torch.export follows, got {name}, which raises {line_of(error).rstrip('.')}{place}: keep "
        "to operations of torch on tensors, or write .lcz, which holds the weights alone"
    )


def _place(line: int | None, path: Path) -> str:
    return f", in line {line} of {path.name}"


def _is_library(path: Path) -> bool:
    return any(path.is_relative_to(folder) for folder in _LIBRARIES)


def _spelled_out(module: nn.Module, kwargs: dict[str, Any]) -> nn.Module:
    """``module`` with the keywords of the example in the signature of ``forward`` in place of ``**kwargs``.

    torch.export frees the dimensions of named arguments.
    """
    forward = module.forward
    signature = inspect.signature(forward)
    named = {name: p for name, p in signature.parameters.items() if p.kind != p.VAR_KEYWORD}
    if len(named) == len(signature.parameters):
        return module
    caught = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in kwargs if name not in named]

    @wraps(forward)
    def spelled_out(*args: Any, **kwargs: Any) -> Any:
        return forward(*args, **kwargs)

    spelled_out.__signature__ = signature.replace(parameters=[*named.values(), *caught])  # type: ignore[attr-defined]
    other = copy.copy(module)  # shares submodules and parameters
    other.forward = spelled_out
    return other


def _of_plain_outputs(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> nn.Module:
    """``module`` with a mapping as output in place of a dataclass, which torch.export and other processes do not know.

    A ``.pt2`` file of a class that was registered could be loaded only where that class is registered too.
    """
    forward, output = module.forward, module(*args, **kwargs)
    if type(output) in pytree.SUPPORTED_NODES or not entries_of(output):
        return module

    @wraps(forward)
    def plain(*args: Any, **kwargs: Any) -> Any:
        return {name: value for name, value in entries_of(forward(*args, **kwargs)).items() if value is not None}

    plain.__signature__ = inspect.signature(forward)  # type: ignore[attr-defined]
    other = copy.copy(module)  # shares submodules and parameters
    other.forward = plain
    return other


def _doubled(value: Any) -> Any:
    return torch.cat([value, value]) if isinstance(value, Tensor) and value.ndim else value
