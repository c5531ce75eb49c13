"""Programs: a module's computation as torch.export sees it, and the ``.pt2`` file."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import torch._inductor
from torch import Tensor, nn
from torch._dynamo.exc import UserError, UserErrorType
from torch.export import Dim, ExportedProgram
from torch.utils import _pytree as pytree

from lightning_compress.deploy.checks import tensors_in

__all__ = ["trace", "write_package", "write_program"]


def trace(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ExportedProgram:
    """The computation of ``module`` with the first dimension of every tensor left free, as one batch size.

    Args:
        module: in evaluation mode.
        args: positional arguments of ``forward``.
        kwargs: its keyword arguments.

    Raises:
        ValueError: ``forward`` computes one batch size alone.
    """
    batch = Dim("batch", min=1)
    # A batch of one would be taken for a constant of the model.
    args, kwargs = pytree.tree_map(lambda x: _doubled(x) if isinstance(x, Tensor) and x.ndim else x, (args, kwargs))
    module = _spelled_out(module, kwargs)
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


def write_program(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: Path
) -> Callable[[], list[Tensor]]:
    """Write the ``.pt2`` file; calling the result loads it and runs it on the same arguments."""
    torch.export.save(trace(module, args, kwargs), path)

    def run() -> list[Tensor]:
        output = torch.export.load(path).module()(*args, **kwargs)
        return tensors_in(output)

    return run


def write_package(
    module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], path: Path
) -> Callable[[], list[Tensor]]:
    """Compile to a ``.pt2`` package of machine code; calling the result loads it and runs it on the same arguments."""
    torch._inductor.aoti_compile_and_package(
        trace(module, args, kwargs), package_path=str(path), inductor_configs={"freezing": True}
    )

    def run() -> list[Tensor]:
        output = torch._inductor.aoti_load_package(str(path))(*args, **kwargs)
        return tensors_in(output)

    return run


def _spelled_out(module: nn.Module, kwargs: dict[str, Any]) -> nn.Module:
    """``module``, its ``forward`` naming what ``**kwargs`` of it take: torch.export frees dimensions by name."""
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
    other = copy.copy(module)  # of the same submodules and parameters
    other.forward = spelled_out
    return other


def _doubled(tensor: Tensor) -> Tensor:
    return torch.cat([tensor, tensor])
