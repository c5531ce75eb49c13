"""Layers whose weight is int8 codes and scales, and which are in all else what they were.

A layer takes the integers in place of its parameters, and a class of its own that computes ``weight`` and ``bias`` from
them. The ``forward`` of its old class reads these, be it one of torch or one that scales or pads; attributes and hooks
are still there.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from lightning_compress.quantization.activations.biases import MOST, bias_unit, channel_grid, fold
from lightning_compress.quantization.activations.quantizers import ActivationQuantizer
from lightning_compress.quantization.grids import AffineGrid, precise

__all__ = [
    "IntegerRows",
    "Integers",
    "QuantizeDequantize",
    "QuantizedEmbedding",
    "QuantizedLayer",
    "mixed",
    "quantize_embedding_",
    "quantize_layer_",
    "quantize_parameter_",
]

_ops = torch.ops.quantized_decomposed


class QuantizeDequantize:
    """A hook that rounds what passes to the grid of ``quantizer``, as two operations of the graph.

    Args:
        quantizer: whose scale and zero point become constants.
    """

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        self.scale = float(quantizer.scale)
        self.zero_point = int(quantizer.zero_point)
        self.levels = quantizer.levels

    def __call__(self, x: Tensor) -> Tensor:
        if self.levels < 255:  # exporters read the type, uint8, and not the range
            x = x.clamp(-self.zero_point * self.scale, (self.levels - self.zero_point) * self.scale)
        form = (self.scale, self.zero_point, 0, 255, torch.uint8)
        rounded: Tensor = _ops.dequantize_per_tensor(_ops.quantize_per_tensor(x, *form), *form)
        return _as(x.dtype, rounded)

    def on_input(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The forward pre-hook."""
        return (self(args[0]), *args[1:])

    def on_output(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """The forward hook."""
        return self(output)


class Integers(nn.Module):
    """A weight as codes and scales, and the bias that goes with it, in float or in integers too.

    Args:
        weight: on ``grid``; its first dimension, or that of ``(out, in)`` if the grid is transposed, are the outputs.
        bias: of each output.
        grid: of the weight.

    Attributes:
        codes: ``(out, in, ...)``.
        transposed: whether the weight is read as ``(in, out)``.
        dtype: in which weight and bias are read.
        explicit: whether :attr:`weight` is given by the operation from which compilers make integer kernels.
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
        """Whether every index of the first dimension, an output channel, has one scale, and not several."""
        return len(self.scale) == len(self.codes)

    @property
    def weight(self) -> Tensor:
        """The float weight that the codes stand for."""
        return self.outputs_first.t() if self.transposed else self.outputs_first

    @property
    def outputs_first(self) -> Tensor:
        """The float weight as ``(out, in, ...)``."""
        return _as(self.dtype, self._dequantized())

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
        """The bias that is added."""
        if "bias_codes" not in self._buffers:
            return None if self.float_bias is None else _as(self.dtype, self.float_bias)
        zeros = torch.zeros_like(self.zero_point)
        bias: Tensor = _ops.dequantize_per_channel(
            self.bias_codes, self.bias_unit, zeros, 0, -MOST - 1, MOST, torch.int32
        )
        return _as(self.dtype, bias)

    def fold(self, norm: _BatchNorm) -> bool:
        r"""Take in the normalisation behind: ``s' = s |g|``, ``q' = q sign(g)``, ``b' = beta + (b - mean) g``.

        ``g = gamma / sqrt(var + eps)``. Returns False, and changes nothing, where that is not exact: groups smaller
        than a channel, an affine grid under a negative ``gamma``, statistics of the batch.
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
        # A channel of zeros has any scale; that of another gives its bias a unit that is as fine.
        spare = scale.max() if bool((scale > 0).any()) else torch.ones_like(scale)
        self.scale = torch.where(scale > 0, scale, spare)
        self.float_bias = folded.bias
        return True

    def round_bias(self, input_scale: Tensor) -> None:
        """Give the bias the unit of the integer sums, ``input_scale * scale``: else kernels add it in float."""
        if self.float_bias is None or not self.of_channels:
            return
        unit = bias_unit(input_scale, self.scale)
        if bool((self.float_bias.abs() < unit * MOST).all()):
            self.register_buffer("bias_unit", unit)
            self.register_buffer("bias_codes", (self.float_bias.double() / unit.double()).round().to(torch.int32))
            self.float_bias = None


class QuantizedLayer(nn.Module):
    """What :func:`quantize_layer_` adds to the class of a linear layer or convolution.

    Attributes:
        integers: its weight and bias.
        reads: the rounding that its input has passed last, if any.
        exact: whether it adds up integers, in float64, instead of floats.
    """

    integers: Integers
    reads: QuantizeDequantize | None = None
    exact: bool = False

    @property
    def weight(self) -> Tensor:
        """The float weight that the codes stand for."""
        return self.integers.weight

    @property
    def bias(self) -> Tensor | None:
        """The bias that is added."""
        return self.integers.bias

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.exact and self.reads is not None and self.integers.of_channels:
            return self._sum_of_integers(args[0], self.reads.scale)
        return super().forward(*args, **kwargs)

    def _sum_of_integers(self, x: Tensor, scale: float) -> Tensor:
        """``scale * weight_scale * sum(codes of x * codes) + bias``: a sum has less than 53 bits, so none is lost."""
        integers, x = self.integers, (x.double() / scale).round()
        behind = [1] * (integers.codes.ndim - 2)
        weight = integers.codes.double() - integers.zero_point.double().view(-1, 1, *behind)
        sums = self._conv_forward(x, weight, None) if isinstance(self, _ConvNd) else F.linear(x, weight)
        output: Tensor = sums.float() * (scale * integers.scale).view(-1, *behind)
        return _as(integers.dtype, output if self.bias is None else output + self.bias.view(-1, *behind))


class IntegerRows(nn.Module):
    """The table of an embedding: codes ``(rows, width)``, and a scale for each of the groups in a row.

    Args:
        weight: on ``grid``.
        grid: with one scale a row, one for all of them, or several a row.

    Attributes:
        dtype: in which rows are read.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None

    def __init__(self, weight: Tensor, grid: AffineGrid) -> None:
        super().__init__()
        rows, self.dtype = len(weight), weight.dtype
        scale, zero_point = (
            tensor.float().expand(max(rows, len(tensor)), 1).reshape(rows, -1).clone()
            for tensor in (grid.scale, grid.zero_point)
        )
        self.register_buffer("codes", grid.codes(precise(weight)).to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point if bool(zero_point.any()) else None)

    @property
    def weight(self) -> Tensor:
        """The whole table in float."""
        rows: Tensor = self(torch.arange(len(self.codes), device=self.codes.device))
        return rows

    def forward(self, indices: Tensor) -> Tensor:
        codes = F.embedding(indices, self.codes).float()
        groups = codes.reshape(*indices.shape, self.scale.shape[1], -1)
        if self.zero_point is not None:
            groups = groups - F.embedding(indices, self.zero_point).unsqueeze(-1)
        return _as(self.dtype, (groups * F.embedding(indices, self.scale).unsqueeze(-1)).reshape(codes.shape))


class QuantizedEmbedding(nn.Embedding):
    """An embedding whose rows are looked up as integers, then multiplied.

    Attributes:
        integers: its table.
    """

    integers: IntegerRows

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The whole table in float."""
        return self.integers.weight

    def forward(self, indices: Tensor) -> Tensor:
        rows: Tensor = self.integers(indices)
        return rows


def quantize_layer_(layer: nn.Module, grid: AffineGrid) -> QuantizedLayer:
    """Make a linear layer or convolution, whose weight is on ``grid``, a :class:`QuantizedLayer`; returns it."""
    integers = Integers(layer.get_parameter("weight").detach(), _detached(layer._parameters["bias"]), grid)
    del layer._parameters["weight"], layer._parameters["bias"]
    layer.integers = integers
    layer.__class__ = mixed(QuantizedLayer, type(layer))
    return cast(QuantizedLayer, layer)


def quantize_embedding_(layer: nn.Embedding, grid: AffineGrid) -> QuantizedEmbedding:
    """Make an embedding, whose table is on ``grid``, a :class:`QuantizedEmbedding`; returns it."""
    integers = IntegerRows(layer.weight.detach(), grid)
    del layer._parameters["weight"]
    layer.integers = integers
    # Behind its own class, which may scale what torch's looks up.
    own = type(layer)
    layer.__class__ = QuantizedEmbedding if own is nn.Embedding else mixed(own, QuantizedEmbedding)
    return cast(QuantizedEmbedding, layer)


def quantize_parameter_(module: nn.Module, key: str, grid: AffineGrid) -> None:
    """Let ``module`` compute its parameter ``key``, which is on ``grid``, from integers wherever it reads it."""
    holder = f"{key}_integers"
    integers = Integers(module.get_parameter(key).detach(), None, grid)
    integers.explicit = False  # torch's inductor takes a transposed convolution for another one
    del module._parameters[key]
    module.add_module(holder, integers)
    computed = property(lambda module: module.get_submodule(holder).weight)
    module.__class__ = mixed(type("Quantized", (), {key: computed}), type(module))


def mixed(*kinds: Any) -> Any:
    """The class that looks for what it does in the first of ``kinds``, then in the others."""
    return type("".join(kind.__name__ for kind in kinds), kinds, {})


def _as(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    """``tensor`` in ``dtype``, without an operation in the graph where it is so."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
