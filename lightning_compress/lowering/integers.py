"""Integers: a weight as int8 codes and scales, from which a lowered layer computes its weight and bias."""

from __future__ import annotations

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_compress.quantization.activations.biases import MOST, bias_unit, channel_grid, fold
from lightning_compress.quantization.grids import AffineGrid, precise

__all__ = ["Integers", "in_dtype"]

_ops = torch.ops.quantized_decomposed


class Integers(nn.Module):
    """A weight as codes and scales, with the bias of its layer, in float or in integers.

    Args:
        weight: on ``grid``; ``(out, in, ...)``, or ``(in, out)`` if the grid is transposed.
        bias: of each output.
        grid: of the weight.

    Attributes:
        codes: ``(out, in, ...)``.
        transposed: whether :attr:`weight` is ``(in, out)``.
        dtype: of :attr:`weight` and :attr:`bias`.
        explicit: whether :attr:`weight` and :attr:`bias` are computed by the operation that compilers turn into integer
            kernels.
    """

    explicit: bool = True
    codes: Tensor
    scale: Tensor
    zero_point: Tensor
    float_bias: Tensor | None
    bias_codes: Tensor
    bias_unit: Tensor

    def __init__(self, weight: Tensor, bias: Tensor | None, grid: AffineGrid) -> None:
        super().__init__()
        self.range, self.transposed, self.dtype = (grid.low, grid.high), grid.transposed, weight.dtype
        of_rows = grid.scale.float().flatten(), grid.zero_point.flatten()
        codes = grid.outputs_first(grid.codes(precise(weight))).to(torch.int8).contiguous()
        scale, zero_point = channel_grid(grid, len(codes)) or of_rows
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", zero_point.to(torch.int64))
        self.register_buffer("float_bias", None if bias is None else bias.float())

    @property
    def of_channels(self) -> bool:
        """Whether every output channel, an index of the first dimension, has one scale, and not several."""
        return len(self.scale) == len(self.codes)

    @property
    def weight(self) -> Tensor:
        """The float weight: the values of the codes."""
        return self.outputs_first.t() if self.transposed else self.outputs_first

    @property
    def outputs_first(self) -> Tensor:
        """The float weight as ``(out, in, ...)``."""
        return in_dtype(self.dtype, self._dequantized())

    def _dequantized(self) -> Tensor:
        if self.of_channels and self.explicit:
            weight: Tensor = _ops.dequantize_per_channel(
                self.codes, self.scale, self.zero_point, 0, *self.range, torch.int8
            )
            return weight
        rows = self.codes.reshape(len(self.scale), -1).float()
        return ((rows - self.zero_point.view(-1, 1)) * self.scale.view(-1, 1)).view(self.codes.shape)

    @property
    def bias(self) -> Tensor | None:
        """The bias of the layer."""
        if "bias_codes" not in self._buffers:
            return None if self.float_bias is None else in_dtype(self.dtype, self.float_bias)
        if not self.explicit:
            return in_dtype(self.dtype, self.bias_codes.float() * self.bias_unit)
        zeros = torch.zeros_like(self.zero_point)
        bias: Tensor = _ops.dequantize_per_channel(
            self.bias_codes, self.bias_unit, zeros, 0, -MOST - 1, MOST, torch.int32
        )
        return in_dtype(self.dtype, bias)

    def fold(self, norm: _BatchNorm) -> bool:
        r"""Fold in the normalization after the layer: ``s' = s |g|``, ``q' = q sign(g)``, ``b' = beta + (b - mean) g``.

        ``g = gamma / sqrt(var + eps)``. Returns False, and changes nothing, if that is not exact: several scales per
        channel, a zero point under a negative ``gamma``, statistics of the batch.
        """
        if not self.of_channels:
            return False
        folded = fold(self.scale, self.zero_point, self.float_bias, norm)
        if folded is None:
            return False
        signs = folded.gain.sign().to(torch.int8).view(-1, *[1] * (self.codes.ndim - 1))
        self.codes = torch.where(signs < 0, -self.codes, self.codes)
        scale = folded.scale
        self.codes = torch.where((scale > 0).view_as(signs), self.codes, self.zero_point.view_as(signs).to(torch.int8))
        # A channel of zeros may have any scale; the largest gives its bias a unit as fine as another's.
        spare = scale.max() if bool((scale > 0).any()) else torch.ones_like(scale)
        self.scale = torch.where(scale > 0, scale, spare)
        self.float_bias = folded.bias
        return True

    def round_bias(self, input_scale: Tensor) -> None:
        """Store the bias as integers in the unit of the sums, ``input_scale * scale``: kernels can add these."""
        if self.float_bias is None or not self.of_channels:
            return
        unit = bias_unit(input_scale, self.scale)
        if bool((self.float_bias.abs() < unit * MOST).all()):
            self.register_buffer("bias_unit", unit)
            self.register_buffer("bias_codes", (self.float_bias.double() / unit.double()).round().to(torch.int32))
            self.float_bias = None


def in_dtype(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    """``tensor`` in ``dtype``, without an operation in the graph if it has that type already."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)
