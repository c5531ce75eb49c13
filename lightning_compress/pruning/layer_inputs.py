"""Layer inputs: the mean square of each input of a layer, for criteria that read inputs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from lightning_compress.processes import mean, shard
from lightning_compress.targets import Target, is_linear

__all__ = ["InputSquares", "check_inputs", "mean_square"]


def check_inputs(target: Target) -> None:
    """Raise ValueError if a target is not a weight whose dimension 1 is the inputs of its layer."""
    module, key = target.module, target.name.rpartition(".")[2]
    plain = is_linear(module) or (
        isinstance(module, _ConvNd) and not isinstance(module, _ConvTransposeNd) and module.groups == 1
    )
    if key != "weight" or not plain:
        raise ValueError(
            "need linear layers or convolutions with groups=1 for a criterion that reads inputs, "
            f"got {target.name!r} of a {type(module).__name__}: add it to exclude"
        )


def mean_square(inputs: Tensor, weight_ndim: int) -> Tensor:
    """Mean square of each input of a layer over batch and positions, broadcastable to its weight ``(out, in, ...)``.

    Args:
        inputs: ``(..., in)`` for a linear layer (``weight_ndim`` 2), ``(N, in, ...)`` for a convolution.
        weight_ndim: dimensions of the layer's weight.

    Returns:
        ``(1, in, 1, ...)`` with ``weight_ndim`` dimensions, float32.

    >>> mean_square(torch.tensor([[1.0, 2.0], [3.0, 0.0]]), 2).tolist()
    [[5.0, 2.0]]
    """
    dim = inputs.ndim - 1 if weight_ndim == 2 else inputs.ndim - weight_ndim + 1
    others = [d for d in range(inputs.ndim) if d != dim]
    squares = inputs.detach().float().square()
    average = squares.mean(others) if others else squares
    return average.view(1, -1, *[1] * (weight_ndim - 2))


class InputSquares:
    """Measures the inputs of the targets' layers in every forward pass of training.

    Args:
        targets: name -> target; each passes :func:`check_inputs`.
    """

    def __init__(self, targets: Mapping[str, Target]) -> None:
        self._targets = targets
        self._squares: dict[str, list[Tensor]] = {}
        self._handles = [
            target.module.register_forward_pre_hook(
                partial(self._measure, name, target.parameter.ndim), with_kwargs=True
            )
            for name, target in targets.items()
        ]

    def take(self) -> dict[str, Tensor]:
        """Name -> mean square since the last call over all processes, broadcastable to this process's weight."""
        squares, self._squares = self._squares, {}
        means = {name: torch.stack(parts).mean(0) for name, parts in squares.items()}
        means = dict(zip(means, mean(list(means.values())), strict=True))
        return {name: _placed_like(square, self._targets[name]) for name, square in means.items()}

    def close(self) -> None:
        """Stop measuring."""
        for handle in self._handles:
            handle.remove()

    def _measure(
        self, name: str, weight_ndim: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if module.training and torch.is_grad_enabled():
            read = args[0] if args else next(iter(kwargs.values()))
            self._squares.setdefault(name, []).append(mean_square(read, weight_ndim))


def _placed_like(square: Tensor, target: Target) -> Tensor:
    """``square`` in the layout of the target's weight: a transposed weight is sharded along its inputs."""
    return shard(target.outputs_first(square), target.parameter) if target.transposed else square
