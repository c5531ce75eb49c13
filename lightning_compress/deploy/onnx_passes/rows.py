"""Rows: products of integers with a range for each row of activations, in ONNX.

The order of the scales matters. ONNX Runtime fuses ``MatMulInteger`` with one multiplication by the product of two
scales, and then takes the scale of the first row for all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.lowering.integers import Integers
from lightning_compress.lowering.layers import QuantizedLayer, mixed
from lightning_compress.lowering.rounding import RoundRows
from lightning_compress.quantization.activations.rounding import row_scales

__all__ = ["multiplies_rows", "multiply_rows_", "translations"]

_ZERO = 128  # the code of zero as uint8
_MOST = 64  # kernels of x86 CPUs without VNNI add 255 * weight twice in 16 bits, and saturate if the weight is larger
_FLOAT, _UINT8 = 1, 2  # types of ONNX


@torch.library.custom_op("lightning_compress::multiply_rows", mutates_args=())
def _multiply_rows(x: Tensor, codes: Tensor, scale: Tensor, bits: int, zero: int) -> Tensor:
    """``s * scale * (round(x / s) @ (codes - zero))`` with the scale ``s`` of each row of ``x``.

    Codes are ``(inputs, outputs)``, uint8 or int8.
    """
    steps = row_scales(x, bits)
    return ((x * (1 / steps)).round() @ (codes.float() - zero)) * scale * steps


@_multiply_rows.register_fake
def _(x: Tensor, codes: Tensor, scale: Tensor, bits: int, zero: int) -> Tensor:
    return x.new_empty((*x.shape[:-1], codes.shape[1]))


class _WeightOfRows(nn.Module):
    """A weight, inputs first, as an integer product reads it, and its bias.

    Codes that are large are uint8, whose products every CPU adds exactly; others are int8, for which CPUs have the
    faster kernels.

    Args:
        integers: with one scale for each output, and zero points of 0.
    """

    codes: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, integers: Integers) -> None:
        super().__init__()
        codes = integers.codes.t().contiguous()
        self.zero = _ZERO if bool((codes.short().abs() > _MOST).any()) else 0
        self.register_buffer("codes", (codes.short() + _ZERO).to(torch.uint8) if self.zero else codes)
        self.register_buffer("scale", integers.scale)
        self.register_buffer("bias", integers.bias)


class _RowProduct(nn.Module):
    """Mixed into the class of a linear layer whose input has a range for each row."""

    integers: _WeightOfRows
    reads: RoundRows

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name of torch, by which it may be given)
        product: Tensor = torch.ops.lightning_compress.multiply_rows(
            input, self.integers.codes, self.integers.scale, self.reads.bits, self.integers.zero
        )
        return product if self.integers.bias is None else product + self.integers.bias


def multiplies_rows(layer: QuantizedLayer) -> bool:
    """Whether an integer product computes ``layer``, which is linear: its rows are rounded, and it is in float32."""
    integers = layer.integers
    plain = integers.of_channels and not bool(integers.zero_point.any()) and integers.dtype == torch.float32
    return plain and isinstance(layer.reads, RoundRows)


def multiply_rows_(layer: QuantizedLayer) -> None:
    """Let an integer product compute ``layer``, which rounds its input itself."""
    for key, hook in list(layer._forward_pre_hooks.items()):
        if isinstance(getattr(hook, "__self__", None), RoundRows):
            layer._forward_pre_hooks[key] = _unchanged
    layer.__class__ = mixed(_RowProduct, type(layer))
    layer.add_module("integers", _WeightOfRows(layer.integers))


def _unchanged(layer: nn.Module, args: tuple[Any, ...]) -> None:
    """A hook without an effect: ``nn.TransformerEncoderLayer`` calls its layers only where one of them has a hook."""


def translations() -> dict[Any, Callable[..., Any]]:
    """Operation -> its form in ONNX."""
    import onnxscript

    opset21: Any = onnxscript.opset21  # its types know no constants

    def multiply_rows(x: Any, codes: Any, scale: Any, bits: int, zero: int) -> Any:
        largest = opset21.ReduceMax(opset21.Abs(x), opset21.Constant(value_ints=[-1]), keepdims=1)
        highest = opset21.Constant(value_float=float(2 ** (bits - 1) - 1))
        smallest = opset21.Constant(value_float=float(torch.finfo(torch.float32).eps))
        steps = opset21.Max(opset21.Div(largest, highest), smallest)
        middle = opset21.Cast(opset21.Constant(value_int=_ZERO), to=_UINT8)
        one = opset21.Constant(value_float=1.0)
        rounded = opset21.QuantizeLinear(opset21.Mul(x, opset21.Reciprocal(steps)), one, middle)
        zeros = (middle, middle) if zero else (middle,)
        sums = opset21.Cast(opset21.MatMulInteger(rounded, codes, *zeros), to=_FLOAT)
        return opset21.Mul(opset21.Mul(sums, scale), steps)  # not by the product of both: see above

    return {torch.ops.lightning_compress.multiply_rows.default: multiply_rows}
