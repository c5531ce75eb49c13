"""Traces: the computation of a module, with a free batch size, as torch.export gives it."""

from __future__ import annotations

import copy
import inspect
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch._dynamo.exc import UserError, UserErrorType
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from lightning_compress.example_inputs import ExampleInput, as_arguments, entries_of

__all__ = ["trace"]


def trace(module: nn.Module, example: ExampleInput) -> ExportedProgram:
    """Trace ``module``; the first dimension of every tensor is one free batch size.

    Args:
        module: in evaluation mode.
        example: input of ``forward``.

    Raises:
        ValueError: ``forward`` depends on the batch size of the example.
    """
    batch = Dim("batch", min=1)
    # torch.export takes a batch of one for a constant of the model.
    args, kwargs = as_arguments(pytree.tree_map(_doubled, example))
    module = _of_plain_outputs(_spelled_out(module, kwargs), args, kwargs)
    named = inspect.signature(module.forward).bind(*args, **kwargs).arguments
    shapes = pytree.tree_map(lambda x: {0: batch} if isinstance(x, Tensor) and x.ndim else None, named)
    try:
        return torch.export.export(module, args, kwargs, dynamic_shapes=shapes)
    except UserError as error:
        if error.error_type != UserErrorType.CONSTRAINT_VIOLATION:
            raise
        raise ValueError(
            "need a forward that takes any batch size, got one that is bound to that of the example: take the size as "
            f"x.shape[0], not as len(x) or int(...), and compare it with no number. torch.export says: {error}"
        ) from error


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
