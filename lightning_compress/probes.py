"""Probes: a forward pass of one layer on made-up numbers, which shows the weight that its operation reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

__all__ = ["keeps_zeros"]

_FORWARDS = {
    kind.forward
    for kind in (
        nn.Linear,
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        nn.ConvTranspose1d,
        nn.ConvTranspose2d,
        nn.ConvTranspose3d,
    )
}


def keeps_zeros(layer: nn.Module) -> bool:
    """Whether a linear layer or convolution computes with a weight that is zero where its parameter is.

    One that standardizes its weight does not: it subtracts the mean. A layer is tried out on random numbers if it has a
    ``forward`` of its own; where that fails the answer is True.

    >>> class Standardized(nn.Linear):
    ...     def forward(self, x):
    ...         return nn.functional.linear(x, self.weight - self.weight.mean(), self.bias)
    >>> keeps_zeros(Standardized(4, 2)), keeps_zeros(nn.Linear(4, 2))
    (False, True)
    """
    kind: Any = type(layer)
    if not isinstance(layer, nn.Linear | _ConvNd):
        return True
    if kind.forward in _FORWARDS and (not isinstance(layer, _ConvNd) or _pads_as_torch(kind)):
        return True
    generator = torch.Generator().manual_seed(0)
    state = {f"layer.{name}": torch.ones_like(tensor, device="cpu") for name, tensor in layer.state_dict().items()}
    weight = torch.randn(layer.weight.shape, generator=generator)
    weight *= torch.rand(layer.weight.shape, generator=generator) < 0.5
    shape = [layer.in_features] if isinstance(layer, nn.Linear) else [layer.in_channels, *_smallest(layer)]
    x, watch = torch.randn(2, *shape, generator=generator), _Weights(weight.shape)
    try:
        with torch.no_grad(), torch.random.fork_rng([]), watch:
            functional_call(_Bare(layer), state | {"layer.weight": weight}, (x,))
    except Exception:
        return True
    return not any(bool(read[weight == 0].any()) for read in watch.seen)


def _pads_as_torch(kind: Any) -> bool:
    own = getattr(kind, "_conv_forward", None)
    return own is None or own in {nn.Conv1d._conv_forward, nn.Conv2d._conv_forward, nn.Conv3d._conv_forward}


def _smallest(layer: _ConvNd) -> list[int]:
    """A size of the input, large enough for the kernel."""
    return [dilation * (size - 1) + 1 for size, dilation in zip(layer.kernel_size, layer.dilation, strict=True)]


class _Bare(nn.Module):
    """Runs a layer without its hooks."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer.forward(x)


class _Weights(TorchFunctionMode):
    """Notes the weights of a shape that linear operations and convolutions read."""

    def __init__(self, shape: torch.Size) -> None:
        super().__init__()
        self._shape = shape
        self.seen: list[Tensor] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__name__", "").startswith(("linear", "conv")):
            weight = args[1] if len(args) > 1 else kwargs.get("weight")
            if isinstance(weight, Tensor) and weight.shape == self._shape:
                self.seen.append(weight)
        return func(*args, **kwargs)
