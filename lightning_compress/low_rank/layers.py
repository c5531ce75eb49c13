"""Layers that are split in two.

A linear layer ``y = W x + b`` becomes ``y = L (R x) + b``. A convolution becomes one with the same kernel, stride,
padding and dilation to ``r`` channels, and a pointwise one from these to its outputs: scheme 1 of the paper with the
roles of inputs and outputs swapped.

Paper: Jaderberg, Vedaldi and Zisserman, "Speeding up Convolutional Neural Networks with Low Rank Expansions",
https://arxiv.org/abs/1405.3866 (2014).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.processes import unsharded_class
from lightning_compress.targets import is_transposed

__all__ = ["Factorized", "as_matrix", "factorized_layers", "merge_", "obstacle", "split_"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Factorized(nn.Module):
    """A layer that is split in two: ``second(first(x))``.

    :func:`split_` makes it of a layer in place, so that hooks, and references to the layer, go on as before.

    Attributes:
        first: from the inputs to ``rank`` features, without a bias.
        second: from these to the outputs, with the layer's bias.
        kind: the class that the layer had.
    """

    is_one_layer = True  # patterns that name the layer, or its weight, match the parameters in it
    first: nn.Module
    second: nn.Module
    kind: type[nn.Module]

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.second(self.first(x))
        return output

    @property
    def rank(self) -> int:
        """Features between the two layers."""
        return len(self.first.get_parameter("weight"))

    @property
    def weight(self) -> Tensor:
        """The product of the factors, computed anew, in the shape that the weight had: for code that reads it."""
        first, second = (part.get_parameter("weight") for part in (self.first, self.second))
        matrix = second.flatten(1) @ first.flatten(1)
        return matrix.t() if self._transposed else matrix.view(len(second), *first.shape[1:])

    @property
    def bias(self) -> nn.Parameter | None:
        """The bias of the second layer."""
        return self.second._parameters["bias"]

    @property
    def _transposed(self) -> bool:
        return not issubclass(self.kind, nn.Linear | nn.modules.conv._ConvNd)

    def extra_repr(self) -> str:
        return f"{self.kind.__name__} of rank {self.rank}"


def obstacle(layer: nn.Module) -> str:
    """The reason why a layer cannot be split; empty if it can. A subclass may compute something else than its base."""
    kind = unsharded_class(layer)
    if kind in _CONVOLUTIONS:
        return "" if vars(layer)["groups"] == 1 else "a convolution in groups"
    return "" if kind is nn.Linear or is_transposed(layer) else "neither a linear layer nor a convolution"


def as_matrix(weight: Tensor, transposed: bool) -> Tensor:
    """The matrix ``(out, in * ...)`` of a weight, in float32 at least; ``transposed`` if the weight is ``(in, out)``.

    >>> as_matrix(torch.zeros(8, 4, 3, 3), transposed=False).shape
    torch.Size([8, 36])
    """
    matrix = (weight.t() if transposed else weight).flatten(1)
    return matrix if matrix.dtype == torch.float64 else matrix.float()


@torch.no_grad()
def split_(layer: nn.Module, left: Tensor, right: Tensor) -> None:
    """Split a layer in two, in place: it becomes :class:`Factorized`.

    Args:
        layer: linear or a convolution; its bias is kept, its weight is given up.
        left: ``(out, rank)``.
        right: ``(rank, in * ...)``.
    """
    weight, bias = layer.get_parameter("weight"), layer._parameters["bias"]
    kernel = weight.shape[2:]
    first, second = _parts(layer, right.shape[1] // kernel.numel(), len(right), len(left))
    for part, factor, shape in ((first, right, kernel), (second, left, [1] * len(kernel))):
        factor = factor.to(weight.dtype).reshape(len(factor), -1, *shape).contiguous()
        part.weight = nn.Parameter(factor, weight.requires_grad)
        part.train(layer.training)
    second.register_parameter("bias", bias)
    del layer._parameters["weight"], layer._parameters["bias"]
    layer.kind, layer.__class__ = type(layer), Factorized  # type: ignore[assignment]
    layer.first, layer.second = first, second


@torch.no_grad()
def merge_(layer: Factorized) -> None:
    """Make a split layer the layer that it was, in place; its weight is the product of the factors."""
    weight = nn.Parameter(layer.weight.contiguous(), layer.first.get_parameter("weight").requires_grad)
    bias = layer.bias
    del layer._modules["first"], layer._modules["second"]
    layer.__class__ = vars(layer).pop("kind")
    layer.register_parameter("weight", weight)
    layer.register_parameter("bias", bias)


def factorized_layers(module: nn.Module) -> dict[str, Factorized]:
    """Name -> layer that is split, in ``module``."""
    return {name: layer for name, layer in module.named_modules() if isinstance(layer, Factorized)}


def _parts(layer: Any, inputs: int, rank: int, outputs: int) -> tuple[Any, Any]:
    """The two layers, without memory: :func:`split_` gives them their parameters."""
    bare: dict[str, Any] = {"bias": False, "device": "meta"}
    if not isinstance(layer, _CONVOLUTIONS):
        return nn.Linear(inputs, rank, **bare), nn.Linear(rank, outputs, **bare)
    spatial: Any = {
        key: getattr(layer, key) for key in ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    }
    return type(layer)(inputs, rank, **spatial, **bare), type(layer)(rank, outputs, 1, **bare)
