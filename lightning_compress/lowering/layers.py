"""Linear layers and convolutions whose weight is int8 codes and scales.

A lowered layer holds :class:`~.integers.Integers` instead of its parameters, and a class of its own that computes
``weight`` and ``bias`` from them. The ``forward`` of its old class reads these, whether it is a class of torch or one
that also scales or pads. Attributes and hooks stay.
"""

from __future__ import annotations

from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from lightning_compress.lowering.integers import Integers, in_dtype
from lightning_compress.lowering.rounding import Rounding
from lightning_compress.quantization.grids import AffineGrid

__all__ = ["QuantizedLayer", "mixed", "quantize_layer_", "quantize_parameter_"]


class QuantizedLayer(nn.Module):
    """The class that :func:`quantize_layer_` puts before the class of a linear layer or convolution.

    Attributes:
        integers: its weight and bias.
        reads: the last rounding that its input has passed, if any.
        exact: whether it sums integers, in float64, instead of floats.
    """

    integers: Integers
    reads: Rounding | None = None
    exact: bool = False

    @property
    def weight(self) -> Tensor:
        """The float weight: the values of the codes."""
        return self.integers.weight

    @property
    def bias(self) -> Tensor | None:
        """The bias of the layer."""
        return self.integers.bias

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if self.exact and self.reads is not None and self.integers.of_channels:
            return self._sum_of_integers(args[0], self.reads.step(args[0]))
        return super().forward(*args, **kwargs)

    def _sum_of_integers(self, x: Tensor, scale: float | Tensor) -> Tensor:
        """``scale * weight_scale * sum(codes of x * codes) + bias``: exact, since a sum has fewer than 53 bits."""
        integers, x = self.integers, (x.double() / scale).round()
        trailing = [1] * (integers.codes.ndim - 2)
        weight = integers.codes.double() - integers.zero_point.double().view(-1, 1, *trailing)
        sums = self._conv_forward(x, weight, None) if isinstance(self, _ConvNd) else F.linear(x, weight)
        output: Tensor = sums.float() * (scale * integers.scale.view(-1, *trailing))
        return in_dtype(integers.dtype, output if self.bias is None else output + self.bias.view(-1, *trailing))


def quantize_layer_(layer: nn.Module, grid: AffineGrid, *, explicit: bool = True) -> QuantizedLayer:
    """Turn a linear layer or convolution, whose weight is on ``grid``, into a :class:`QuantizedLayer`; returns it."""
    integers = Integers(layer.get_parameter("weight").detach(), _detached(layer._parameters.pop("bias", None)), grid)
    integers.explicit = explicit
    del layer._parameters["weight"]
    layer.integers = integers
    layer.__class__ = mixed(QuantizedLayer, type(layer))
    return cast(QuantizedLayer, layer)


def quantize_parameter_(module: nn.Module, key: str, grid: AffineGrid, *, explicit: bool) -> None:
    """Let ``module`` compute its parameter ``key``, which is on ``grid``, from integers at every access.

    Args:
        module: of any class.
        key: of the parameter.
        grid: of the parameter.
        explicit: by the operation that compilers turn into integer kernels; torch's inductor mistakes a transposed
            convolution for another one then.
    """
    holder = f"{key}_integers"
    integers = Integers(module.get_parameter(key).detach(), None, grid)
    integers.explicit = explicit
    del module._parameters[key]
    module.add_module(holder, integers)
    computed = property(lambda module: module.get_submodule(holder).weight)
    module.__class__ = mixed(type("Quantized", (), {key: computed}), type(module))


def mixed(*kinds: Any) -> Any:
    """A class that inherits from ``kinds``, in this order."""
    return type("".join(kind.__name__ for kind in kinds), kinds, {})


def _detached(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()
