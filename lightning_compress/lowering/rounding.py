"""Rounding of activations in a lowered module, as explicit quantize and dequantize operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import Tensor, nn

from lightning_compress.lowering.integers import in_dtype
from lightning_compress.quantization.activations.quantizers import ActivationQuantizer, RowQuantizer
from lightning_compress.quantization.activations.rounding import row_scales

__all__ = ["QuantizeDequantize", "RoundRows", "Rounding"]

_ops = torch.ops.quantized_decomposed


class Rounding(ABC):
    """A hook that rounds a tensor."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """``x`` rounded, in its dtype."""

    @abstractmethod
    def step(self, x: Tensor) -> float | Tensor:
        """The distance of two values that ``x`` is rounded to, broadcast with ``x``."""

    def on_input(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The forward pre-hook."""
        return (self(args[0]), *args[1:])

    def on_output(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """The forward hook."""
        return self(output)


class RoundRows(Rounding):
    """A hook that rounds each row to the grid of its own, as plain arithmetic.

    Args:
        quantizer: its bits count.
    """

    def __init__(self, quantizer: RowQuantizer) -> None:
        self.bits = quantizer.bits

    def __call__(self, x: Tensor) -> Tensor:
        step = self.step(x)
        return in_dtype(x.dtype, (in_dtype(torch.float32, x) * (1 / step)).round() * step)

    def step(self, x: Tensor) -> Tensor:
        return row_scales(x, self.bits)


class QuantizeDequantize(Rounding):
    """A hook that rounds a tensor to the grid of ``quantizer``, as two operations of the graph.

    Args:
        quantizer: its scale and zero point become constants.
        signed: whether the codes are int8, ``2^(bits - 1)`` lower than the uint8 codes of the same values.
        explicit: with False, the same values come from plain arithmetic, which torch runs without further imports.
    """

    def __init__(self, quantizer: ActivationQuantizer, *, signed: bool = False, explicit: bool = True) -> None:
        self.scale = float(quantizer.scale)
        self.lowest = -(2 ** (quantizer.bits - 1)) if signed else 0
        self.zero_point = int(quantizer.zero_point) + self.lowest
        self.levels = quantizer.levels
        self.signed = signed
        self.explicit = explicit

    def __call__(self, x: Tensor) -> Tensor:
        return in_dtype(x.dtype, self._rounded(x) if self.explicit else self._plainly_rounded(x))

    def step(self, x: Tensor) -> float:
        return self.scale

    def _rounded(self, x: Tensor) -> Tensor:
        if self.levels < 255:  # exporters read the type, but not the range
            lowest = self.lowest - self.zero_point
            x = x.clamp(lowest * self.scale, (lowest + self.levels) * self.scale)
        codes = (-128, 127, torch.int8) if self.signed else (0, 255, torch.uint8)
        form = (self.scale, self.zero_point, *codes)
        rounded: Tensor = _ops.dequantize_per_tensor(_ops.quantize_per_tensor(x, *form), *form)
        return rounded

    def _plainly_rounded(self, x: Tensor) -> Tensor:
        """As the two operations do it: ``x * (1 / scale)``, not ``x / scale``, rounds to the same integers."""
        lowest = self.lowest - self.zero_point
        steps = in_dtype(torch.float32, x) * (1.0 / self.scale)
        return steps.round().clamp(lowest, lowest + self.levels) * self.scale
