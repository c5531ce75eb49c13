"""Freezing: a trained module compiled for the running process, its weights constants of the program."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch._inductor import config

from lightning_compress.deploy.checks import check_equal, check_near, tensors_in
from lightning_compress.deploy.modes import ExampleInput, arguments, device_of, evaluating, on_device
from lightning_compress.deploy.program import trace
from lightning_compress.quantization.lowering import is_quantized, lower

__all__ = ["freeze"]


def freeze(module: nn.Module, example_input: ExampleInput) -> Callable[..., Any]:
    """Compile ``module`` as it is now, with ``torch.compile`` and constant weights, and check what that computes.

    A module that was trained by ``QATCallback`` computes in integers then. Compiled is what the example asks for;
    another shape is compiled when it first comes. The module itself is left as it is, and what it learns later is not
    seen.

    Args:
        module: a trained module; a LightningModule computes its ``forward``.
        example_input: what ``forward`` takes: a tensor, a tuple of arguments or a mapping of keyword arguments.

    Returns:
        a function that computes ``forward`` in evaluation mode, without gradients.

    Raises:
        ValueError: what was compiled does not compute what the module does.

    Example::

        fast = freeze(module, images)
        logits = fast(images)
    """
    with evaluating(module):
        example = on_device(example_input, device_of(module))
        args, kwargs = arguments(example)
        if is_quantized(module):
            check, frozen = check_near, lower(module, args, kwargs)
        else:
            check, frozen = check_equal, copy.deepcopy(module)
        # Each shape on its own: with a free one, inductor reads a single channel wrongly (pad_single_channels).
        compiled = torch.compile(trace(frozen, args, kwargs).module(), dynamic=False)

        def run(*args: Any, **kwargs: Any) -> Any:
            with torch.no_grad(), config.patch(freezing=True):  # an option of torch.compile is not enough
                return compiled(*args, **kwargs)

        check("the compiled module", module, example, tensors_in(run(*args, **kwargs)))
    return run
