"""Hollow layers: placeholders for the layers of a removed residual branch, so that the model's own code runs as before.

A hollow layer returns its bias, or zeros, for every input, in the shape that the layer would return.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.targets import is_linear, is_transposed

__all__ = ["NORMALIZATIONS", "Hollow", "hollow_", "is_leaf", "refill_", "returns_bias"]

NORMALIZATIONS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)
"""Layers without products of weights that still have entries for channels; hollow, they return their input."""


class Hollow(nn.Module):
    """A layer without weights: its output is its bias, or zero, for every input, in the shape of the layer's output.

    Args:
        layer: the layer to replace; its weights and hooks are moved out of it. Its settings (``stride``) stay readable.
        biased: whether the bias stays a parameter, under its name.
    """

    def __init__(self, layer: nn.Module, biased: bool) -> None:
        super().__init__()
        for key in getattr(layer, "__constants__", ()):
            setattr(self, key, getattr(layer, key))
        self.bias: nn.Parameter | None
        self.register_parameter("bias", layer.get_parameter("bias") if biased else None)
        self.outputs = layer.get_parameter("weight").shape[is_transposed(layer)] if returns_bias(layer) else 0
        self.space: tuple[tuple[int, int, int, int], ...] = ()  # size, stride, padding, dilation of the kernel, by axis
        if isinstance(layer, nn.modules.conv._ConvNd):
            self.space = tuple(zip(layer.kernel_size, layer.stride, _padding(layer), layer.dilation, strict=True))
        _move_hooks(layer, self)
        self.train(layer.training)
        self._layer = (layer.to("meta"),)  # in a tuple, so that it is no submodule

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(*, outputs)`` for a linear layer, ``(*, outputs, *space)`` for a convolution, ``x`` for others."""
        if not self.outputs:
            return x
        last = x.ndim - len(self.space)
        space = [
            (size + padding - dilation * (kernel - 1) - 1) // stride + 1
            for size, (kernel, stride, padding, dilation) in zip(x.shape[last:], self.space, strict=True)
        ]
        constant = x.new_zeros(self.outputs) if self.bias is None else self.bias
        if torch.is_autocast_enabled(x.device.type):
            constant = constant.to(torch.get_autocast_dtype(x.device.type))
        return constant.view(*[1] * (last - 1), -1, *[1] * len(space)).expand(
            *x.shape[: last - 1], self.outputs, *space
        )

    def narrow_(self, entries: Mapping[int, Tensor]) -> None:
        """Return fewer channels; ``entries``: dimension of the former weight -> positions that are removed."""
        if self.outputs:
            self.outputs -= len(entries.get(int(is_transposed(self._layer[0])), ()))

    def extra_repr(self) -> str:
        return f"{type(self._layer[0]).__name__}, outputs={self.outputs}, bias={self.bias is not None}"


def returns_bias(layer: nn.Module) -> bool:
    """Whether a layer returns its bias or zeros when it is hollow; other layers return their input."""
    return is_linear(layer) or isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)


def is_leaf(module: nn.Module) -> bool:
    """Whether a module has no submodules; only such modules can be hollow."""
    return next(module.children(), None) is None


def hollow_(module: nn.Module, layers: Mapping[str, bool]) -> None:
    """Replace layers of ``module`` by hollow ones, under every name.

    Args:
        module: changed in place.
        layers: name -> whether the bias stays.
    """
    for name, biased in layers.items():
        layer = module.get_submodule(name)
        if not isinstance(layer, Hollow):
            _put_(module, layer, Hollow(layer, biased))


def refill_(module: nn.Module, name: str) -> None:
    """Replace a hollow layer of ``module`` by the layer that it was, with zeros for weights."""
    hollow: Any = module.get_submodule(name)
    layer: nn.Module = hollow._layer[0].to_empty(
        device=next((p.device for p in module.parameters()), torch.device("cpu"))
    )
    with torch.no_grad():
        for tensor in layer.state_dict().values():
            tensor.zero_()
    _move_hooks(hollow, layer)
    _put_(module, hollow, layer.train(hollow.training))


def _put_(module: nn.Module, old: nn.Module, new: nn.Module) -> None:
    for owner in list(module.modules()):
        owner._modules.update({key: new for key, part in owner._modules.items() if part is old})


def _move_hooks(old: nn.Module, new: nn.Module) -> None:
    """Move hooks, such as those of quantizers, to the layer that takes the place of the old one."""
    for key, hooks in vars(old).items():
        if key.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")) and isinstance(hooks, dict):
            vars(new)[key] = hooks
            vars(old)[key] = type(hooks)()


def _padding(layer: Any) -> list[int]:
    """The padding of a convolution by axis, both sides together."""
    if layer.padding == "valid":
        return [0] * len(layer.kernel_size)
    if layer.padding == "same":
        return [dilation * (kernel - 1) for dilation, kernel in zip(layer.dilation, layer.kernel_size, strict=True)]
    return [2 * padding for padding in layer.padding]
