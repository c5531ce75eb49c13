"""Lowering: the trained module as one that says in its operations what is integer.

The copy holds int8 codes instead of float weights, and explicit quantize and dequantize operations where the trained
module has quantizers: the form that ONNX Runtime, OpenVINO and torch's inductor fuse into integer kernels. Batch
normalisation behind a quantized layer is folded into the scales and biases, exactly: the integers stay the same.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from lightning_compress.quantization.activations import ActivationQuantizer, Place, detach_quantizers, quantizers_of
from lightning_compress.quantization.biases import MOST, bias_unit, channel_grid, fold
from lightning_compress.quantization.grids import Grid, precise
from lightning_compress.quantization.neighbors import norms_behind, quantizers_before
from lightning_compress.quantization.placement import has_integer_kernel
from lightning_compress.quantization.traces import Trace
from lightning_compress.quantization.weights import grids_of

__all__ = ["QuantizeDequantize", "QuantizedEmbedding", "QuantizedLayer", "is_quantized", "lower", "pad_single_channels"]

_ops = torch.ops.quantized_decomposed


def is_quantized(module: nn.Module) -> bool:
    """Whether ``module`` was trained on grids that its weights or activations are on."""
    return bool(grids_of(module) or quantizers_of(module))


def lower(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    integer_bias: bool = False,
    exact: bool = False,
) -> nn.Module:
    """A copy of ``module`` in evaluation mode with int8 weights and explicit quantize and dequantize operations.

    Linear layers and convolutions that were trained on a grid become a :class:`QuantizedLayer`, embeddings a
    :class:`QuantizedEmbedding`; others keep their weights, whose values are on the grid. ``module`` is left as it is.

    Args:
        module: trained with :class:`~lightning_compress.quantization.QATCallback`, or loaded with
            :func:`~lightning_compress.loading.load_compressed`.
        args: what its ``forward`` takes.
        kwargs: keyword arguments of its ``forward``.
        integer_bias: round the biases of linear layers to multiples of ``input scale * weight scale``, which lets
            ONNX Runtime fuse them; without it, and without batch normalisation, every bit stays what it was.
        exact: add up the products of integers exactly, as integer kernels do, where inputs are quantized: the reference
            for these. Floats, which the trained module adds up, round in an order that depends on the machine.

    Raises:
        ValueError: ``module`` was not trained on a grid, a weight is not on its grid (any more), or is a float64.
    """
    _check_module(module)
    lowered = copy.deepcopy(module).eval()
    quantizers, grids = quantizers_of(lowered), grids_of(lowered)
    detach_quantizers(lowered)
    with torch.enable_grad(), Trace(lowered) as trace:
        lowered(*args, **(kwargs or {}))
    norms, places = norms_behind(lowered, trace), quantizers_before(trace, quantizers)
    inputs = {layer: quantizers[place] for layer, place in places.items()}
    for name, grid in grids.items():
        path, _, key = name.rpartition(".")
        layer = lowered.get_submodule(path)
        _check_on_grid(name, layer.get_parameter(key), grid)
        if key == "weight" and has_integer_kernel(layer):
            norm = lowered.get_submodule(norms[path]) if path in norms else None
            quantized = QuantizedLayer(layer, grid)
            if isinstance(norm, _BatchNorm) and quantized.fold(norm):
                lowered.set_submodule(norms[path], nn.Identity())
            if integer_bias and path in inputs and quantized.is_linear:
                quantized.round_bias(inputs[path].scale)
            if path in inputs and inputs[path].enabled:
                quantized.reads = QuantizeDequantize(inputs[path])
                quantized.exact = exact
            lowered.set_submodule(path, quantized)
        elif key == "weight" and isinstance(layer, nn.Embedding) and _has_rows(layer, grid):
            lowered.set_submodule(path, QuantizedEmbedding(layer, grid))
    for place, quantizer in quantizers.items():
        if quantizer.enabled:
            _attach(lowered, place, QuantizeDequantize(quantizer))
    return lowered


def pad_single_channels(lowered: nn.Module) -> None:
    """Let quantized convolutions of one channel read a second one, of zeros: torch's inductor reads one wrongly.

    With a free batch size it takes other strides for what such a convolution gives than that has (torch 2.13).
    """
    for layer in lowered.modules():
        if isinstance(layer, QuantizedLayer) and isinstance(layer.layer, nn.Conv2d) and layer.layer.in_channels == 1:
            zeros = layer.zero_point.to(torch.int8).view(-1, 1, 1, 1).expand_as(layer.codes)
            layer.codes = torch.cat([layer.codes, zeros], dim=1)
            layer.register_forward_pre_hook(_with_zeros, prepend=True)


def _with_zeros(layer: QuantizedLayer, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    padded = F.pad(args[0], (0, 0, 0, 0, 0, 1))
    # Rounding again changes nothing; without it the compiler sees no quantizer before the layer, and computes in float.
    return (padded if layer.reads is None else layer.reads(padded), *args[1:])


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
        return rounded

    def on_input(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The forward pre-hook."""
        return (self(args[0]), *args[1:])

    def on_output(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """The forward hook."""
        return self(output)


class QuantizedLayer(nn.Module):
    """A linear layer or convolution whose weight is int8 codes and scales.

    Args:
        layer: the trained layer; it is taken over.
        grid: that its weight is on.

    Attributes:
        codes: ``(out, in, ...)``.
        reads: the rounding that its input has passed last, if any.
        exact: whether it adds up integers, in float64, instead of floats.
    """

    reads: QuantizeDequantize | None = None
    exact: bool = False
    codes: Tensor
    scale: Tensor
    zero_point: Tensor
    bias: Tensor | None
    bias_codes: Tensor
    bias_unit: Tensor

    def __init__(self, layer: nn.Module, grid: Grid) -> None:
        super().__init__()
        weight, bias = layer.get_parameter("weight").detach(), layer._parameters["bias"]
        self.range = grid.low, grid.high
        of_rows = grid.scale.float().flatten(), grid.zero_point.flatten()
        codes = grid.outputs_first(grid.codes(precise(weight))).to(torch.int8).contiguous()
        scale, zero_point = channel_grid(grid, len(codes)) or of_rows
        self.register_buffer("codes", codes)
        self.register_buffer("scale", scale.clone())
        self.register_buffer("zero_point", zero_point.to(torch.int64))
        self.register_buffer("bias", None if bias is None else bias.detach().float())
        layer.register_parameter("weight", None)
        layer.register_parameter("bias", None)
        self.layer = layer

    @property
    def is_linear(self) -> bool:
        """Whether it is a matrix product, and no convolution."""
        return not isinstance(self.layer, _ConvNd)

    def fold(self, norm: _BatchNorm) -> bool:
        r"""Take in the normalisation behind: ``s' = s |g|``, ``q' = q sign(g)``, ``b' = beta + (b - mean) g``.

        ``g = gamma / sqrt(var + eps)``. Returns False, and changes nothing, where that is not exact: groups smaller
        than a channel, an affine grid under a negative ``gamma``, statistics of the batch.
        """
        if len(self.scale) != len(self.codes):
            return False
        folded = fold(self.scale, self.zero_point, self.bias, norm)
        if folded is None:
            return False
        signs = folded.gain.sign().to(torch.int8).view(-1, *[1] * (self.codes.ndim - 1))
        self.codes = torch.where(signs < 0, -self.codes, self.codes)
        scale = folded.scale
        self.codes = torch.where((scale > 0).view_as(signs), self.codes, self.zero_point.view_as(signs).to(torch.int8))
        # A channel of zeros has any scale; that of another gives its bias a unit that is as fine.
        spare = scale.max() if bool((scale > 0).any()) else torch.ones_like(scale)
        self.scale = torch.where(scale > 0, scale, spare)
        self.bias = folded.bias
        return True

    def round_bias(self, input_scale: Tensor) -> None:
        """Give the bias the unit of the integer sums, ``input_scale * scale``: else kernels add it in float."""
        if self.bias is None or len(self.scale) != len(self.codes):
            return
        unit = bias_unit(input_scale, self.scale)
        if bool((self.bias.abs() < unit * MOST).all()):
            self.register_buffer("bias_unit", unit)
            self.register_buffer("bias_codes", (self.bias.double() / unit.double()).round().to(torch.int32))
            self.bias = None

    def _bias(self) -> Tensor | None:
        if "bias_codes" not in self._buffers:
            return self.bias
        zeros = torch.zeros_like(self.zero_point)
        bias: Tensor = _ops.dequantize_per_channel(
            self.bias_codes, self.bias_unit, zeros, 0, -MOST - 1, MOST, torch.int32
        )
        return bias

    @property
    def weight(self) -> Tensor:
        """The float weight that the codes stand for."""
        if len(self.scale) == len(self.codes):
            weight: Tensor = _ops.dequantize_per_channel(
                self.codes, self.scale, self.zero_point, 0, *self.range, torch.int8
            )
            return weight
        rows = self.codes.reshape(len(self.scale), -1).float()
        return ((rows - self.zero_point.view(-1, 1)) * self.scale.view(-1, 1)).view(self.codes.shape)

    def forward(self, x: Tensor) -> Tensor:
        if self.exact and self.reads is not None and len(self.scale) == len(self.codes):
            return self._sum_of_integers(x, self.reads.scale)
        return self._product(x, self.weight, self._bias())

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if x.dtype != weight.dtype:  # in half precision, where no quantizer gives the input
            weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
        if self.is_linear:
            return F.linear(x, weight, bias)
        output: Tensor = self.layer._conv_forward(x, weight, bias)  # type: ignore[operator]
        return output

    def _sum_of_integers(self, x: Tensor, scale: float) -> Tensor:
        """``scale * self.scale * sum(codes of x * codes) + bias``: the sum has less than 53 bits, so none is lost."""
        behind = [1] * (self.codes.ndim - 2)
        weight = self.codes.double() - self.zero_point.double().view(-1, 1, *behind)
        total = self._product((x.double() / scale).round(), weight, None).float()
        bias = self._bias()
        output = total * (scale * self.scale).view(-1, *behind)
        return output if bias is None else output + bias.view(-1, *behind)


class QuantizedEmbedding(nn.Module):
    """An embedding whose table is int8 codes and scales: rows are looked up, then multiplied.

    Args:
        layer: the trained embedding.
        grid: that its table is on, with one scale a row or one in all.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor

    def __init__(self, layer: nn.Embedding, grid: Grid) -> None:
        super().__init__()
        rows = len(layer.weight)
        self.register_buffer("codes", grid.codes(precise(layer.weight.detach())).to(torch.int8))
        self.register_buffer("scale", grid.scale.float().expand(rows, 1).clone())
        self.register_buffer("zero_point", grid.zero_point.float().expand(rows, 1).clone())
        self.shifted = bool(self.zero_point.any())
        self.dtype = layer.weight.dtype

    @property
    def weight(self) -> Tensor:
        """The float table that the codes stand for: an output tied to the embedding multiplies by it."""
        return ((self.codes.float() - self.zero_point) * self.scale).to(self.dtype)

    def forward(self, indices: Tensor) -> Tensor:
        codes = F.embedding(indices, self.codes).float()
        if self.shifted:
            codes = codes - F.embedding(indices, self.zero_point)
        rows = codes * F.embedding(indices, self.scale)
        return rows if rows.dtype == self.dtype else rows.to(self.dtype)


def _has_rows(layer: nn.Embedding, grid: Grid) -> bool:
    return len(grid.scale) in (1, layer.num_embeddings)


def _check_module(module: nn.Module) -> None:
    if not is_quantized(module):
        raise ValueError(
            "need a module trained with QATCallback, got one without grids: train it, or load its checkpoint with "
            "load_compressed"
        )
    if any(parameter.dtype == torch.float64 for parameter in module.parameters()):
        raise ValueError(
            "need a module in float32 or half precision to lower to integers, got one in float64: train it with "
            "precision='32-true'"
        )


def _check_on_grid(name: str, weight: Tensor, grid: Grid) -> None:
    weight = weight.detach()
    if not torch.equal(grid.project(precise(weight)).to(weight.dtype), weight):
        raise ValueError(
            f"need weights on the grids that they were trained on, got {name!r} off its grid: it was changed after "
            "training, or the schedule had not ended"
        )


def _attach(module: nn.Module, place: Place, hook: QuantizeDequantize) -> None:
    holder = module.get_submodule(place.module)
    if place.side == "input":
        holder.register_forward_pre_hook(hook.on_input)
    else:
        holder.register_forward_hook(hook.on_output)
