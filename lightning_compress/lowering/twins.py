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
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from lightning_compress.lowering.layers import (
    QuantizeDequantize,
    QuantizedLayer,
    quantize_embedding_,
    quantize_layer_,
    quantize_parameter_,
)
from lightning_compress.quantization.activations.quantizers import Place, detach_quantizers, quantizers_of
from lightning_compress.quantization.dataflow.kinds import has_integer_kernel
from lightning_compress.quantization.dataflow.neighbors import norms_behind, quantizers_before
from lightning_compress.quantization.dataflow.traces import Trace
from lightning_compress.quantization.grids import AffineGrid, precise
from lightning_compress.quantization.weights import grids_of

__all__ = ["check_lowerable", "is_quantized", "lower", "pad_single_channels"]

_FLOAT = (nn.RNNBase, nn.EmbeddingBag)  # their kernels take all weights at once, in every call


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

    Linear layers and convolutions that were trained on a grid become a :class:`~.layers.QuantizedLayer`, embeddings a
    :class:`~.layers.QuantizedEmbedding`. Attention, transposed convolutions and others compute in float, with weights
    that are stored in integers; recurrent layers and embedding bags keep their weights, whose values are on the grid.
    ``module`` is left as it is.

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
    check_lowerable(module)
    lowered = copy.deepcopy(module).eval()
    quantizers = quantizers_of(lowered)
    grids = {name: grid for name, grid in grids_of(lowered).items() if isinstance(grid, AffineGrid)}
    detach_quantizers(lowered)
    with torch.enable_grad(), Trace(lowered) as trace:
        lowered(*args, **(kwargs or {}))
    norms, places = norms_behind(lowered, trace), quantizers_before(lowered, trace, quantizers)
    inputs = {layer: quantizers[place] for layer, place in places.items()}
    for name, grid in grids.items():
        path, _, key = name.rpartition(".")
        layer = lowered.get_submodule(path)
        _check_on_grid(name, layer.get_parameter(key), grid)
        if key == "weight" and has_integer_kernel(layer):
            norm = lowered.get_submodule(norms[path]) if path in norms else None
            quantized = quantize_layer_(layer, grid)
            if isinstance(norm, _BatchNorm) and quantized.integers.fold(norm):
                lowered.set_submodule(norms[path], nn.Identity())
            if integer_bias and path in inputs and not isinstance(layer, _ConvNd):
                quantized.integers.round_bias(inputs[path].scale)
            if path in inputs and inputs[path].enabled:
                quantized.reads = QuantizeDequantize(inputs[path])
                quantized.exact = exact
        elif key == "weight" and isinstance(layer, nn.Embedding):
            quantize_embedding_(layer, grid)
        elif not isinstance(layer, _FLOAT):
            quantize_parameter_(layer, key, grid)
    for place, quantizer in quantizers.items():
        if quantizer.enabled:
            _attach(lowered, place, QuantizeDequantize(quantizer))
    return lowered


def pad_single_channels(lowered: nn.Module) -> None:
    """Let quantized convolutions of one channel read a second one, of zeros: torch's inductor reads one wrongly.

    With a free batch size it takes other strides for what such a convolution gives than that has (torch 2.13).
    """
    for layer in lowered.modules():
        if not (isinstance(layer, QuantizedLayer) and isinstance(layer, nn.Conv2d) and layer.in_channels == 1):
            continue
        integers = layer.integers
        if integers.of_channels:
            zeros = integers.zero_point.to(torch.int8).view(-1, 1, 1, 1).expand_as(integers.codes)
            integers.codes = torch.cat([integers.codes, zeros], dim=1)
            layer.register_forward_pre_hook(_with_zeros, prepend=True)


def _with_zeros(layer: QuantizedLayer, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    padded = F.pad(args[0], (0, 0, 0, 0, 0, 1))
    # Rounding again changes nothing; without it the compiler sees no quantizer before the layer, and computes in float.
    return (padded if layer.reads is None else layer.reads(padded), *args[1:])


def check_lowerable(module: nn.Module) -> None:
    """Refuse a module that :func:`lower` cannot lower, before any work is done.

    Raises:
        ValueError: ``module`` has no grid, a grid of another kind than :class:`AffineGrid`, or parameters in float64.
    """
    for name, grid in grids_of(module).items():
        if not isinstance(grid, AffineGrid):
            raise ValueError(
                f"need weights on affine grids to lower them to integers, got {name!r} on a {type(grid).__name__}: "
                "export(module, 'model.lcz') stores any grid"
            )
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


def _check_on_grid(name: str, weight: Tensor, grid: AffineGrid) -> None:
    weight = weight.detach()
    if not torch.equal(grid.values(grid.codes(precise(weight))).to(weight.dtype), weight):
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
