"""Blocks: weights with a scale for each block of inputs, in ONNX.

From opset 21 on ``DequantizeLinear`` takes blocks and four-bit integers; runtimes fuse it with the matrix product that
reads it, and hold the weights packed, two to a byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_compress.deploy.onnx_passes.rows import multiplies_rows, multiply_rows_
from lightning_compress.lowering.integers import Integers
from lightning_compress.lowering.layers import QuantizedLayer, mixed
from lightning_compress.quantization.dataflow.kinds import is_plain

__all__ = ["pack_four_bits", "translations", "with_blocks"]


@torch.library.custom_op("lightning_compress::dequantize_blocks", mutates_args=())
def _dequantize_blocks(codes: Tensor, scale: Tensor, zero_point: Tensor, size: int) -> Tensor:
    """``(codes - zero_point) * scale``; codes ``(inputs, outputs)``, the others ``(inputs / size, outputs)``."""
    spread = [tensor.repeat_interleave(size, dim=0) for tensor in (scale, zero_point)]
    return (codes.float() - spread[1].float()) * spread[0]


@_dequantize_blocks.register_fake
def _(codes: Tensor, scale: Tensor, zero_point: Tensor, size: int) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


class _Blocks(nn.Module):
    """A weight, inputs first, as a matrix product reads it, and its bias.

    Args:
        integers: with several scales an output.
    """

    of_channels = False
    codes: Tensor
    scale: Tensor
    zero_point: Tensor
    minus_bias: Tensor | None

    def __init__(self, integers: Integers) -> None:
        super().__init__()
        self.shape, self.transposed = integers.codes.shape, integers.transposed
        codes = integers.codes.flatten(1)
        outputs, inputs = codes.shape
        blocks = len(integers.scale) // outputs
        self.size = inputs // blocks
        self.register_buffer("codes", codes.t().contiguous())
        self.register_buffer("scale", integers.scale.view(outputs, blocks).t().contiguous())
        self.register_buffer("zero_point", integers.zero_point.to(torch.int8).view(outputs, blocks).t().contiguous())
        self.register_buffer("minus_bias", None if integers.bias is None else -integers.bias)

    @property
    def weight(self) -> Tensor:
        """The float weight, as its layer reads it."""
        weight = self.dequantized()
        return weight if self.transposed else weight.t().reshape(self.shape)

    @property
    def bias(self) -> Tensor | None:
        """The bias."""
        return None if self.minus_bias is None else -self.minus_bias

    def dequantized(self) -> Tensor:
        """The float weight, inputs first."""
        weight: Tensor = torch.ops.lightning_compress.dequantize_blocks(
            self.codes, self.scale, self.zero_point, self.size
        )
        return weight


class _BlockProduct(nn.Module):
    """Mixed into the class of a linear layer of blocks: ``x @ dequantize(codes) + bias``.

    The bias is subtracted, with its sign changed: ONNX Runtime would fuse product, addition and a following ReLU into
    one float operator before it looks for packed weights.
    """

    integers: _Blocks

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name of torch, by which it may be given)
        product, minus_bias = input @ self.integers.dequantized(), self.integers.minus_bias
        return product if minus_bias is None else product - minus_bias


class _Product(nn.Module):
    """Mixed into the class of any other linear layer: the operation of :class:`torch.nn.Linear`, which is fused."""

    integers: Integers

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (as above)
        return F.linear(input, self.integers.outputs_first, self.integers.bias)


def with_blocks(lowered: nn.Module) -> nn.Module:
    """Change ``lowered`` in place: weights in forms that ONNX knows, several scales per output as blocks."""
    for layer in list(lowered.modules()):
        for name, integers in list(layer.named_children()):
            if not isinstance(integers, Integers):
                continue
            named = name == "integers"
            product = layer if named and isinstance(layer, QuantizedLayer) and _is_product(layer) else None
            if product is not None and multiplies_rows(product):
                multiply_rows_(product)
                continue
            integers.explicit = True  # otherwise the exporter stores the float weight
            if product is not None:
                product.__class__ = mixed(_Product if integers.of_channels else _BlockProduct, type(product))
            if not integers.of_channels:
                layer.add_module(name, _Blocks(integers))
    return lowered


def _is_product(layer: QuantizedLayer) -> bool:
    """Whether a layer, as it was trained, computes the same as :class:`torch.nn.Linear`."""
    forward: Any = super(QuantizedLayer, layer).forward
    transposed = layer.integers.transposed
    return (transposed or isinstance(layer, nn.Linear)) and is_plain(forward.__func__, transposed=transposed)


def translations() -> dict[Any, Callable[..., Any]]:
    """Operation -> its form in ONNX."""
    from onnxscript import opset21

    def dequantize_blocks(codes: Any, scale: Any, zero_point: Any, size: int) -> Any:
        return opset21.DequantizeLinear(codes, scale, zero_point, axis=0, block_size=size)

    return {torch.ops.lightning_compress.dequantize_blocks.default: dequantize_blocks}


def pack_four_bits(model: Any) -> int:
    """Store the codes of blocks in four bits where they fit.

    Args:
        model: an ``onnx_ir.Model``; changed in place.

    Returns:
        Number of packed weights.
    """
    import ml_dtypes
    from onnxscript import ir

    packed = 0
    for node in model.graph:
        if node.op_type != "DequantizeLinear" or node.attributes.get_int("block_size", 0) == 0:
            continue
        values = (node.inputs[0], node.inputs[2])
        arrays = [value.const_value.numpy() for value in values]
        if all(array.min() >= -8 and array.max() <= 7 for array in arrays):
            for value, array in zip(values, arrays, strict=True):
                value.const_value = ir.Tensor(array.astype(ml_dtypes.int4), name=value.name)
                value.type = ir.TensorType(ir.DataType.INT4)
            packed += 1
    return packed
