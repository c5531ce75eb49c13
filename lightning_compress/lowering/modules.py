"""Integer copies: copies of trained modules that compute with integer weights.

The copy holds int8 codes instead of float weights, and explicit quantize and dequantize operations in place of the
quantizers. ONNX Runtime, OpenVINO and torch's inductor fuse this form into integer kernels. Batch normalization after a
quantized layer is folded into its scales and biases exactly: the integers stay the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from lightning_compress.lowering.embeddings import quantize_embedding_
from lightning_compress.lowering.layers import QuantizedLayer, quantize_layer_, quantize_parameter_
from lightning_compress.lowering.rounding import QuantizeDequantize, Rounding, RoundRows
from lightning_compress.messages import listed
from lightning_compress.quantization.activations.quantizers import (
    ActivationQuantizer,
    Place,
    Quantizer,
    RowQuantizer,
    detach_quantizers,
    quantizers_of,
)
from lightning_compress.quantization.dataflow.flow import Dataflow
from lightning_compress.quantization.dataflow.kinds import has_integer_kernel
from lightning_compress.quantization.dataflow.neighbors import norms_after, quantizers_before
from lightning_compress.quantization.dataflow.readers import sole_readers, weight_readers
from lightning_compress.quantization.dataflow.traces import Trace
from lightning_compress.quantization.grids import AffineGrid, precise
from lightning_compress.quantization.profiles import Profile
from lightning_compress.quantization.weights import grids_of

__all__ = ["check_fits", "check_lowerable", "is_quantized", "lower", "pad_single_channels"]

_Maker: TypeAlias = Callable[[Quantizer], Rounding]
_FLOAT = (nn.RNNBase, nn.EmbeddingBag)  # their kernels take all weights at once, in every call: they stay float


def is_quantized(module: nn.Module) -> bool:
    """Whether ``module`` was trained with weights or activations on grids."""
    return bool(grids_of(module) or quantizers_of(module))


def lower(
    module: nn.Module,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any] | None = None,
    *,
    integer_bias: bool = False,
    signed: bool = False,
    exact: bool = False,
    explicit: bool = True,
) -> nn.Module:
    """A copy of ``module`` in evaluation mode with int8 weights and explicit quantize and dequantize operations.

    Linear layers and convolutions that were trained on a grid become a :class:`~.layers.QuantizedLayer`, whatever their
    class, and embeddings a :class:`~.embeddings.QuantizedEmbedding`. Attention, transposed convolutions and others
    compute in float from weights that are stored as integers. Recurrent layers and embedding bags keep float weights,
    whose values are on the grid. ``module`` does not change.

    Args:
        module: trained with :class:`~lightning_compress.quantization.QATCallback`, or loaded with
            :func:`~lightning_compress.loading.load_compressed`.
        args: positional arguments of its ``forward``.
        kwargs: keyword arguments of its ``forward``.
        integer_bias: round the biases of linear layers to multiples of ``input scale * weight scale``, which lets
            ONNX Runtime fuse them. Without it, and without batch normalization, outputs keep every bit.
        signed: the codes of activations are int8 instead of uint8; the values are the same.
        exact: sum products of integers exactly, as integer kernels do, in layers with quantized inputs. This is the
            reference for such kernels; sums of floats depend on the order in which a machine adds them.
        explicit: with False, plain arithmetic gives the same values. Compilers find no integer kernels in it, and torch
            runs it without registering operations.

    Raises:
        ValueError: ``module`` was not trained on a grid, a grid is not affine, a weight is off its grid, or a parameter
            is in float64.
    """
    check_lowerable(module)
    lowered = copy.deepcopy(module).eval()
    quantizers = quantizers_of(lowered)
    detach_quantizers(lowered)
    with torch.enable_grad(), Trace(lowered) as trace:
        lowered(*args, **(kwargs or {}))
    flow = Dataflow(trace)
    norms, places = norms_after(lowered, flow), quantizers_before(lowered, flow, quantizers)
    alone, read = sole_readers(flow).keys(), {name for name in trace.weights if weight_readers(flow, name, ())}
    rounding = partial(_rounding, signed=signed, explicit=explicit)
    for name, grid in grids_of(lowered).items():
        path, _, key = name.rpartition(".")
        layer = lowered.get_submodule(path)
        if not isinstance(grid, AffineGrid) or not _is_on_grid(layer.get_parameter(key), grid):
            raise ValueError(
                f"need weights on the grids that they were trained on, got {name!r} off its grid: it was changed after "
                "training, or the schedule had not ended"
            )
        if key == "weight" and (has_integer_kernel(layer) or path in alone):
            quantized = quantize_layer_(layer, grid, explicit=explicit)
            if path in norms:
                _fold(lowered, quantized, norms[path])
            if path in places:
                _read(quantized, quantizers[places[path]], rounding, integer_bias=integer_bias)
                quantized.exact = exact and quantized.reads is not None
        elif key == "weight" and isinstance(layer, nn.Embedding):
            quantize_embedding_(layer, grid)
        elif not isinstance(layer, _FLOAT):
            quantize_parameter_(layer, key, grid, explicit=explicit and key == "weight" and path in read)
    for place, quantizer in quantizers.items():
        if quantizer.enabled:
            _attach(lowered, place, rounding(quantizer))
    return lowered


def _fold(lowered: nn.Module, layer: QuantizedLayer, name: str) -> None:
    """Fold the normalization of this name into the layer before it, if that is exact."""
    norm = lowered.get_submodule(name)
    if isinstance(norm, _BatchNorm) and layer.integers.fold(norm):
        lowered.set_submodule(name, nn.Identity())


def _rounding(quantizer: Quantizer, *, signed: bool, explicit: bool) -> Rounding:
    if isinstance(quantizer, RowQuantizer):
        return RoundRows(quantizer)
    assert isinstance(quantizer, ActivationQuantizer)  # noqa: S101  (there are two kinds)
    return QuantizeDequantize(quantizer, signed=signed, explicit=explicit)


def _read(layer: QuantizedLayer, quantizer: Quantizer, rounding: _Maker, *, integer_bias: bool) -> None:
    """Tell a layer the quantizer that its input has passed."""
    if integer_bias and isinstance(quantizer, ActivationQuantizer) and not isinstance(layer, _ConvNd):
        layer.integers.round_bias(quantizer.scale)
    if quantizer.enabled:
        layer.reads = rounding(quantizer)


def pad_single_channels(lowered: nn.Module) -> None:
    """Give quantized convolutions of one input channel a second one, of zeros: torch's inductor needs it.

    With a free batch size, torch 2.13 assumes wrong strides for the output of a convolution of one channel.
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
    # Rounding again changes nothing. Without it the compiler finds no quantizer before the layer and computes in float.
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


def check_fits(module: nn.Module, profile: Profile) -> None:
    """Refuse a module whose grids the kernels of a runtime do not take: it was trained for another one.

    Raises:
        ValueError: the profile needs symmetric activations or weights, and one of them has another zero point.
    """
    ranges = [place.module or "the model" for place, it in quantizers_of(module).items() if not it.symmetric]
    grids = [name for name, grid in grids_of(module).items() if isinstance(grid, AffineGrid) and grid.zero_point.any()]
    if profile.symmetric_activations and ranges:
        raise ValueError(
            f"need symmetric ranges of activations for {profile}, got others at {listed(ranges)}: train with "
            f"QATCallback(profile=profiles.{profile}())"
        )
    if profile.symmetric_weights and grids:
        raise ValueError(
            f"need weights with zero points of 0 for {profile}, got others in {listed(grids)}: train with "
            f"QATCallback(profile=profiles.{profile}()), with scale=scales.absmax or scales.mse"
        )


def _is_on_grid(weight: Tensor, grid: AffineGrid) -> bool:
    weight = weight.detach()
    return torch.equal(grid.values(grid.codes(precise(weight))).to(weight.dtype), weight)


def _attach(module: nn.Module, place: Place, hook: Rounding) -> None:
    holder = module.get_submodule(place.module)
    if place.side == "input":
        holder.register_forward_pre_hook(hook.on_input)
    else:
        holder.register_forward_hook(hook.on_output)
