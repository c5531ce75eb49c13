"""Rounding of activations in a lowered module, as explicit quantize and dequantize operations."""

from __future__ import annotations

from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import Tensor, nn

from lightning_compress.lowering.integers import in_dtype
from lightning_compress.quantization.activations.quantizers import ActivationQuantizer

__all__ = ["QuantizeDequantize"]

_ops = torch.ops.quantized_decomposed


class QuantizeDequantize:
    """A hook that rounds a tensor to the grid of ``quantizer``, as two operations of the graph.

    Args:
        quantizer: its scale and zero point become constants.
    """

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        self.scale = float(quantizer.scale)
        self.zero_point = int(quantizer.zero_point)
        self.levels = quantizer.levels

    def __call__(self, x: Tensor) -> Tensor:
        if self.levels < 255:  # exporters read the type, uint8, but not the range
            x = x.clamp(-self.zero_point * self.scale, (self.levels - self.zero_point) * self.scale)
        form = (self.scale, self.zero_point, 0, 255, torch.uint8)
        rounded: Tensor = _ops.dequantize_per_tensor(_ops.quantize_per_tensor(x, *form), *form)
        return in_dtype(x.dtype, rounded)

    def on_input(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The forward pre-hook."""
        return (self(args[0]), *args[1:])

    def on_output(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """The forward hook."""
        return self(output)
