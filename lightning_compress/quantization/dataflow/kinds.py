"""Kinds of layers and operations that integer kernels exist for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from lightning_compress.quantization.dataflow.traces import Operation
from lightning_compress.targets import is_linear

__all__ = ["CONVOLUTIONS", "LAYER_OPERATIONS", "has_integer_kernel", "input_first", "is_plain"]

CONVOLUTIONS = {"conv1d", "conv2d", "conv3d"}

LAYER_OPERATIONS = CONVOLUTIONS | {"linear", "addmm"}
"""Operations that integer kernels exist for."""

_FORWARDS = (nn.Linear.forward, nn.Conv1d.forward, nn.Conv2d.forward, nn.Conv3d.forward)


def has_integer_kernel(layer: nn.Module) -> bool:
    """Whether integer kernels exist for layers of this kind."""
    return is_linear(layer) or isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)


def is_plain(forward: Any, *, transposed: bool = False) -> bool:
    """Whether ``forward`` is that of such a layer itself, and not of a subclass that may do more than the operation.

    Args:
        forward: the function.
        transposed: whether the layer is linear with a weight ``(in, out)``.

    >>> is_plain(nn.Linear.forward), is_plain(nn.Bilinear.forward)
    (True, False)
    """
    if transposed:
        return bool(forward.__qualname__.split(".")[-2:] == ["Conv1D", "forward"])
    return forward in _FORWARDS


def input_first(operation: Operation) -> Operation:
    """The operation with its inputs as ``(input, weight, bias)``: ``addmm(bias, input, weight)`` has the bias first."""
    if operation.name != "addmm":
        return operation
    return replace(operation, inputs=(*operation.inputs[1:], *operation.inputs[:1]))
