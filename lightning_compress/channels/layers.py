"""Layers: the kinds of layers that have channels, and the tensors in which the channels have entries."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_compress.channels.groups import Role
from lightning_compress.targets import is_linear, is_transposed

__all__ = ["channel_entries", "channels_per_group", "has_channels", "is_depthwise", "out_channels", "out_dim"]


def has_channels(layer: object) -> bool:
    """Whether ``layer`` is a convolution or a linear layer.

    >>> has_channels(nn.Conv2d(1, 2, 3)), has_channels(nn.BatchNorm2d(2))
    (True, False)
    """
    return isinstance(layer, nn.modules.conv._ConvNd) or (isinstance(layer, nn.Module) and is_linear(layer))


def is_depthwise(layer: nn.Module) -> bool:
    """Whether ``layer`` is a convolution with one input channel for each output channel."""
    return isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == layer.out_channels == layer.in_channels > 1


def out_dim(layer: nn.Module) -> int:
    """The dimension of the weight along which the output channels lie.

    >>> out_dim(nn.Linear(2, 3)), out_dim(nn.ConvTranspose2d(2, 3, 1))
    (0, 1)
    """
    return int(is_transposed(layer) or (bool(getattr(layer, "transposed", False)) and not is_depthwise(layer)))


def out_channels(layer: nn.Module) -> int:
    """Number of output channels."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        return layer.out_channels
    return layer.get_parameter("weight").shape[out_dim(layer)]


def channels_per_group(layer: nn.Module, incoming: bool) -> int:
    """Channels in one group of a grouped convolution, all groups of which shrink alike; 0 for every other layer.

    Args:
        layer: the layer.
        incoming: count input channels instead of output channels.
    """
    if not isinstance(layer, nn.modules.conv._ConvNd) or layer.groups == 1 or is_depthwise(layer):
        return 0
    return (layer.in_channels if incoming else layer.out_channels) // layer.groups


def channel_entries(layer: Any, incoming: bool, parameter_dim: int) -> list[tuple[str, int, Role]]:
    """The tensors of a layer that have an entry for each of its channels: key, dimension, role.

    Args:
        layer: a layer, or a parameter that is used outside of layers.
        incoming: list the tensors with entries for input channels instead of output channels.
        parameter_dim: the dimension of such a parameter along which the channels lie.

    >>> channel_entries(nn.Linear(2, 3), incoming=False, parameter_dim=0)
    [('weight', 0, 'out'), ('bias', 0, 'other')]
    """
    if isinstance(layer, nn.Parameter):
        return [("", parameter_dim % layer.ndim, "other")]
    if isinstance(layer, nn.Embedding):
        return [("weight", 1, "out")]
    if has_channels(layer):
        if incoming and not is_depthwise(layer):
            return [("weight", 1 - out_dim(layer), "in")]
        bias: list[tuple[str, int, Role]] = [("bias", 0, "other")] if layer.bias is not None else []
        return [("weight", out_dim(layer), "out"), *bias]
    if isinstance(layer, nn.modules.batchnorm._NormBase | nn.PReLU):
        if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
            return []
        roles: dict[str, Role] = {"weight": "other" if isinstance(layer, nn.PReLU) else "scale", "bias": "other"}
        roles |= {"running_mean": "other", "running_var": "other"}
        return [(key, 0, role) for key, role in roles.items() if getattr(layer, key, None) is not None]
    return []
