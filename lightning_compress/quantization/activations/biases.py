"""Biases as integers in the unit of the integer sums, so that integer kernels can add them.

A kernel sums products of codes. A one in the sum of channel ``c`` has the value ``u_c = input_scale * weight_scale_c *
|gain_c|``, where ``gain`` belongs to the batch normalization after the layer. The kernel rounds the bias to a multiple
of this unit and adds it as an integer. If the model itself holds such a bias, the kernel computes the validated model.

Paper: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
https://arxiv.org/abs/1712.05877 (2018), section 2.4.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_compress.processes import local, shard, unsharded
from lightning_compress.quantization.grids import AffineGrid

__all__ = ["MOST", "Folded", "bias_unit", "channel_grid", "fold", "round_bias_"]

MOST = 2**31 - 1
"""The largest integer bias."""


def channel_grid(grid: AffineGrid, channels: int) -> tuple[Tensor, Tensor] | None:
    """Scale and zero point of each output channel, ``(channels,)`` in float32; None if a channel has several."""
    scale, zero_point = grid.scale.float().flatten(), grid.zero_point.float().flatten()
    if len(scale) == 1:  # one scale for the tensor is the same scale for every channel
        scale, zero_point = scale.expand(channels), zero_point.expand(channels)
    return (scale, zero_point) if len(scale) == channels else None


@dataclass(frozen=True)
class Folded:
    """Scale and bias of a layer with the batch normalization after it folded in; tensors are ``(channels,)``.

    Attributes:
        gain: ``gamma / sqrt(var + eps)``, float64; codes change their sign with it.
        shift: ``beta``, float64.
        scale: ``scale * |gain|``, float32.
        bias: ``shift + (bias - mean) * gain``, float32.
    """

    gain: Tensor
    shift: Tensor
    scale: Tensor
    bias: Tensor


def fold(scale: Tensor, zero_point: Tensor, bias: Tensor | None, norm: _BatchNorm) -> Folded | None:
    """Fold a batch normalization into the layer before it; None if that is not exact.

    It is not exact with statistics of the batch, and with a zero point under a negative ``gamma``.

    Args:
        scale: of the weight, ``(channels,)``.
        zero_point: of the weight, ``(channels,)``.
        bias: of the layer, ``(channels,)``.
        norm: after the layer.

    >>> norm = nn.BatchNorm2d(1, eps=0.0)
    >>> _ = norm.running_mean.fill_(3.0), norm.running_var.fill_(4.0)
    >>> folded = fold(torch.ones(1), torch.zeros(1), None, norm)
    >>> folded.scale.item(), folded.bias.item()
    (0.5, -1.5)
    """
    if norm.running_mean is None or norm.running_var is None:
        return None
    gain = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.affine:
        gain = gain * unsharded(norm.weight.detach()).double()
    if bool((gain < 0).any()) and bool(zero_point.any()):
        return None
    shift = unsharded(norm.bias.detach()).double() if norm.affine else torch.zeros_like(gain)
    mean = norm.running_mean.double()
    offset = -mean if bias is None else bias.detach().double() - mean
    return Folded(gain, shift, (scale.double() * gain.abs()).float(), (shift + offset * gain).float())


def bias_unit(input_scale: Tensor, scale: Tensor) -> Tensor:
    """The value of a one in the integer sum of each channel, ``(channels,)``, float32.

    Args:
        input_scale: of the layer's input, a scalar.
        scale: of its weight, ``(channels,)``.
    """
    return input_scale.float() * scale


@torch.no_grad()
def round_bias_(layer: nn.Module, grid: AffineGrid, input_scale: Tensor, norm: nn.Module | None = None) -> None:
    r"""Round the bias of ``layer`` to a multiple of the unit of its integer sums, ``round(b / u) u``.

    If a batch normalization follows, its running mean changes instead of the bias, by at most half a unit of the sums
    before it; every training step changes it by far more. If :func:`fold` is not exact, the bias of the layer changes.
    Left alone are channels whose gain is zero, or whose bias has more than 32 bits; grids with several scales per
    channel; half-precision tensors. Sharded tensors are gathered: call it on every rank.

    Args:
        layer: linear layer or convolution.
        grid: of its weight.
        input_scale: of its input, a scalar.
        norm: the batch normalization that is the only reader of its output.

    >>> layer = nn.Linear(1, 1)
    >>> _ = nn.init.constant_(layer.bias, 0.9)
    >>> round_bias_(layer, AffineGrid(torch.ones(1, 1), torch.zeros(1, 1), -127, 127), torch.tensor(0.5))
    >>> layer.bias.item()
    1.0
    """
    weight, own = layer.get_parameter("weight"), layer._parameters.get("bias")
    of_channels = channel_grid(grid, len(grid.outputs_first(weight)))
    if of_channels is None:
        return
    bias = None if own is None else unsharded(own.detach())
    scale, zero_point = (tensor.to(weight.device) for tensor in of_channels)
    input_scale = input_scale.detach().to(weight.device)
    folded = fold(scale, zero_point, bias, norm) if isinstance(norm, _BatchNorm) else None
    if folded is not None and isinstance(norm, _BatchNorm) and norm.running_mean is not None:
        rounded, fits = _rounded(folded.bias, bias_unit(input_scale, folded.scale))
        mean = (folded.shift - rounded) / folded.gain + (0.0 if bias is None else bias.double())
        _write(norm.running_mean, mean, fits)
    elif bias is not None and own is not None:
        _write(own, *_rounded(bias, bias_unit(input_scale, scale)))


def _rounded(bias: Tensor, unit: Tensor) -> tuple[Tensor, Tensor]:
    """The multiples of ``unit`` nearest to ``bias``, and which of them fit into 32 bits."""
    unit = unit.double()
    return (bias.double() / unit).round() * unit, bias.double().abs() < unit * MOST


def _write(tensor: Tensor, values: Tensor, where: Tensor) -> None:
    if tensor.dtype in (torch.float32, torch.float64):  # half precision has too few digits
        left = torch.where(where, values.to(tensor.dtype), unsharded(tensor.detach()))
        local(tensor.detach()).copy_(shard(left, tensor))
