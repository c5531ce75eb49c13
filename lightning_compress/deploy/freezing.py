"""Freezing: a trained module compiled for the running process, with its weights as constants."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch._inductor
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_compress.deploy.checks import check_answers, check_equal, check_near, cpu_tensors
from lightning_compress.example_inputs import (
    ExampleInput,
    as_arguments,
    check_runs,
    device_of,
    evaluating,
    on_device,
    unwrapped,
)
from lightning_compress.lowering.modules import is_quantized, lower
from lightning_compress.training.copies import merged_copy

__all__ = ["freeze"]


def freeze(module: nn.Module, example_input: ExampleInput) -> Callable[..., Any]:
    """Compile ``module`` as it is now, by AOTInductor with constant weights, and check its outputs.

    A module that was trained by ``QATCallback`` computes in integers. The shapes of the example are compiled at once,
    other shapes at their first call. The module itself is left as it is; later training does not change the compiled
    function.

    Args:
        module: a trained module; a LightningModule computes its ``forward``.
        example_input: input of ``forward``: a tensor, a tuple of arguments or a mapping of keyword arguments.

    Returns:
        A function that computes ``forward`` in evaluation mode, without gradients.

    Raises:
        ValueError: ``forward`` does not run on the example, or gives NaN or other outputs each time, or the compiled
            function does not compute the same as the module.

    Example::

        fast = freeze(module, images)
        logits = fast(images)
    """
    module = merged_copy(unwrapped(module))
    with evaluating(module):
        example = on_device(example_input, device_of(module))
        args, kwargs = as_arguments(example)
        check_runs(module, example)
        check_answers(module, example)
        if is_quantized(module):
            check, frozen = check_near, lower(module, args, kwargs)
        else:
            check, frozen = check_equal, copy.deepcopy(module)
        programs: dict[Any, Callable[..., Any]] = {}

        @torch.no_grad()
        def run(*args: Any, **kwargs: Any) -> Any:
            leaves, tree = pytree.tree_flatten((args, kwargs))
            key = tree, *((x.shape, x.dtype, x.device) if isinstance(x, Tensor) else x for x in leaves)
            if key not in programs:
                programs[key] = _compiled(frozen, args, kwargs)
            return programs[key](*args, **kwargs)

        check("the compiled module", module, example, cpu_tensors(run(*args, **kwargs)))
    return run


def _compiled(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any]:
    """``module`` for these shapes only; calling torch.compile's result takes longer than running a small network."""
    program = torch.export.export(module, args, kwargs)
    with TemporaryDirectory() as folder:
        path = torch._inductor.aoti_compile_and_package(
            program, package_path=str(Path(folder) / "frozen.pt2"), inductor_configs={"freezing": True}
        )
        loaded: Callable[..., Any] = torch._inductor.aoti_load_package(path)
    return loaded
