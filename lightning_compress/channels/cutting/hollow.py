"""Hollow layers: what stays of the layers of a branch that is gone, so that the model's own code runs as before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.targets import is_linear, is_transposed

__all__ = ["NORMALISING", "Hollow", "computes", "hollow_", "is_leaf", "refill_"]

NORMALISING = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.PReLU)
"""Layers between those that compute, which have entries of channels too."""


class Hollow(nn.Module):
    """A layer that computes nothing any more: its output is its bias, or zero, whatever comes in, in the same shape.

    Args:
        layer: what it was; it gives up its weights and its hooks. What it says of itself (``stride``) stays readable.
        biased: whether the bias stays a parameter, under its name.
    """

    def __init__(self, layer: nn.Module, biased: bool) -> None:
        super().__init__()
        for key in getattr(layer, "__constants__", ()):
            setattr(self, key, getattr(layer, key))
        self.bias: nn.Parameter | None
        self.register_parameter("bias", layer.get_parameter("bias") if biased else None)
        self.outputs = layer.get_parameter("weight").shape[is_transposed(layer)] if computes(layer) else 0
        self.space: tuple[tuple[int, int, int, int], ...] = ()  # size, stride, padding, dilation of the kernel, by axis
        if isinstance(layer, nn.modules.conv._ConvNd):
            self.space = tuple(zip(layer.kernel_size, layer.stride, _padding(layer), layer.dilation, strict=True))
        _move_hooks(layer, self)
        self.train(layer.training)
        self._was = (layer.to("meta"),)  # in a tuple: no part of this module

    def forward(self, x: Tensor) -> Tensor:
        """Give ``(*, outputs)`` of a linear layer, ``(*, outputs, *space)`` of a convolution, ``x`` of any other."""
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

    def narrow_(self, gone: Mapping[int, Tensor]) -> None:
        """Give fewer channels; ``gone``: dimension of the weight that it had -> positions that are removed."""
        if self.outputs:
            self.outputs -= len(gone.get(int(is_transposed(self._was[0])), ()))

    def extra_repr(self) -> str:
        return f"{type(self._was[0]).__name__}, outputs={self.outputs}, bias={self.bias is not None}"


def computes(layer: nn.Module) -> bool:
    """Whether a layer gives its bias when it is hollow, or zeros; any other lets through what it gets."""
    return is_linear(layer) or isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)


def is_leaf(module: nn.Module) -> bool:
    """Whether a module has no parts; only such can be hollow."""
    return next(module.children(), None) is None


def hollow_(module: nn.Module, layers: Mapping[str, bool]) -> None:
    """Make layers of ``module`` hollow, wherever they occur.

    Args:
        module: changed in place.
        layers: name -> whether the bias stays.
    """
    for name, biased in layers.items():
        layer = module.get_submodule(name)
        if not isinstance(layer, Hollow):
            _put_(module, layer, Hollow(layer, biased))


def refill_(module: nn.Module, name: str) -> None:
    """Make a hollow layer of ``module`` what it was, with zeros for weights."""
    hollow: Any = module.get_submodule(name)
    layer: nn.Module = hollow._was[0].to_empty(
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
    """Whoever listens to the layer, such as a quantizer, goes on listening to what stands in its place."""
    for key, hooks in vars(old).items():
        if key.endswith(("_hooks", "_hooks_with_kwargs", "_hooks_always_called")) and isinstance(hooks, dict):
            vars(new)[key] = hooks
            vars(old)[key] = type(hooks)()


def _padding(layer: Any) -> list[int]:
    """What a convolution pads, both sides together, by axis."""
    if layer.padding == "valid":
        return [0] * len(layer.kernel_size)
    if layer.padding == "same":
        return [dilation * (kernel - 1) for dilation, kernel in zip(layer.dilation, layer.kernel_size, strict=True)]
    return [2 * padding for padding in layer.padding]
