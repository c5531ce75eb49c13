"""Blocks: linear layers with a scale for each block of inputs, as ONNX says them.

From opset 21 on ``DequantizeLinear`` takes blocks and four-bit integers; runtimes fuse it with the matrix product that
reads it, and hold the weights packed, two to a byte.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.quantization.lowering import QuantizedLayer

__all__ = ["pack_four_bits", "translations", "with_blocks"]


@torch.library.custom_op("lightning_compress::dequantize_blocks", mutates_args=())
def _dequantize_blocks(codes: Tensor, scale: Tensor, zero_point: Tensor, size: int) -> Tensor:
    """``(codes - zero_point) * scale``; codes ``(inputs, outputs)``, the others ``(inputs / size, outputs)``."""
    spread = [tensor.repeat_interleave(size, dim=0) for tensor in (scale, zero_point)]
    return (codes.float() - spread[1].float()) * spread[0]


@_dequantize_blocks.register_fake
def _(codes: Tensor, scale: Tensor, zero_point: Tensor, size: int) -> Tensor:
    return codes.new_empty(codes.shape, dtype=torch.float32)


class _BlockLinear(nn.Module):
    """``x @ dequantize(codes) + bias``: the weight as a matrix product reads it, inputs first.

    The bias is subtracted, with its sign changed: ONNX Runtime would make one float operator of product, addition and a
    ReLU behind them before it looks for packed weights.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor
    minus_bias: Tensor | None

    def __init__(self, layer: QuantizedLayer) -> None:
        super().__init__()
        outputs, inputs = layer.codes.shape
        blocks = len(layer.scale) // outputs
        self.size = inputs // blocks
        self.register_buffer("codes", layer.codes.t().contiguous())
        self.register_buffer("scale", layer.scale.view(outputs, blocks).t().contiguous())
        self.register_buffer("zero_point", layer.zero_point.to(torch.int8).view(outputs, blocks).t().contiguous())
        self.register_buffer("minus_bias", None if layer.bias is None else -layer.bias)

    @property
    def weight(self) -> Tensor:
        """The float weight, outputs first: attention reads that of the projection behind it without calling it."""
        return self._dequantized().t()

    @property
    def bias(self) -> Tensor | None:
        """The bias."""
        return None if self.minus_bias is None else -self.minus_bias

    def _dequantized(self) -> Tensor:
        weight: Tensor = torch.ops.lightning_compress.dequantize_blocks(
            self.codes, self.scale, self.zero_point, self.size
        )
        return weight

    def forward(self, x: Tensor) -> Tensor:
        product = x @ self._dequantized()
        return product if self.minus_bias is None else product - self.minus_bias


def with_blocks(lowered: nn.Module) -> nn.Module:
    """``lowered`` with its linear layers of several scales an output in the form that ONNX knows; changed in place."""
    for name, layer in list(lowered.named_modules()):
        if isinstance(layer, QuantizedLayer) and layer.is_linear:
            outputs = len(layer.codes)
            if len(layer.scale) > outputs and len(layer.scale) % outputs == 0:
                block = _BlockLinear(layer)
                for key in ("_forward_pre_hooks", "_forward_hooks"):  # the quantizers
                    getattr(block, key).update(getattr(layer, key))
                lowered.set_submodule(name, block)
    return lowered


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
        how many weights were packed.
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
