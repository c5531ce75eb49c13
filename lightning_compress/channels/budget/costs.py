"""Costs: MACs and parameters of a model, from the shapes of its parameters and the price of their elements."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from lightning_compress.channels.groups import RemovedEntries
from lightning_compress.channels.removal.shapes import dense_sizes
from lightning_compress.example_inputs import tensors_in
from lightning_compress.macs import count_macs

__all__ = ["NO_COSTS", "Costs", "costs_of", "mac_prices", "narrowed_sizes", "sizes_of", "total_cost"]


@dataclass(frozen=True)
class Costs:
    """Costs of a model, now and before any channel was removed.

    Attributes:
        sizes: parameter name -> shape now.
        dense: parameter name -> shape before any channel was removed.
        prices: ``"macs"`` and ``"parameters"`` -> parameter name -> price of one element.
    """

    sizes: Mapping[str, Sequence[int]]
    dense: Mapping[str, Sequence[int]]
    prices: Mapping[str, Mapping[str, float]]

    def fraction(self, name: str, entries: RemovedEntries | None = None, removed: Collection[str] = ()) -> float:
        """The fraction of the dense cost that is left.

        Args:
            name: ``"macs"`` or ``"parameters"``.
            entries: entries that do not count, because they are masked.
            removed: names of parameters that do not count at all.
        """
        total = self.total(name)
        left = total_cost(narrowed_sizes(self.sizes, entries or {}, removed), self.prices[name])
        return left / total if total else 1.0  # where nothing has a price, nothing can be saved

    def total(self, name: str) -> float:
        """Cost of the dense model."""
        return total_cost(self.dense, self.prices[name])


NO_COSTS = Costs({}, {}, {"macs": {}, "parameters": {}})
"""Costs of a model that is not known yet: all of it is left."""


def costs_of(module: nn.Module, prices: Mapping[str, float]) -> Costs:
    """The costs of ``module``.

    Args:
        module: the model, from which channels may have been removed.
        prices: weight name -> MACs of one element.
    """
    sizes = sizes_of(module)
    return Costs(sizes, dense_sizes(module), {"macs": prices, "parameters": dict.fromkeys(sizes, 1.0)})


def total_cost(sizes: Mapping[str, Sequence[int]], prices: Mapping[str, float]) -> float:
    """Sum of the prices of all elements, in MACs or parameters.

    Args:
        sizes: name -> shape.
        prices: name -> price of one element; a tensor without a price or without a shape costs nothing.

    >>> total_cost({"fc.weight": (3, 4), "fc.bias": (3,)}, {"fc.weight": 2.0})
    24.0
    """
    return float(sum(price * torch.Size(sizes[name]).numel() for name, price in prices.items() if name in sizes))


def narrowed_sizes(
    sizes: Mapping[str, Sequence[int]], entries: RemovedEntries, removed: Collection[str] = ()
) -> dict[str, list[int]]:
    """Shapes after removal.

    Args:
        sizes: name -> shape.
        entries: positions that are removed.
        removed: names of tensors that are removed whole.

    >>> narrowed_sizes({"a": (3, 4), "b": (2,)}, {"a": {1: torch.tensor([0, 2])}}, {"b"})
    {'a': [3, 2]}
    """
    left = {name: list(size) for name, size in sizes.items() if name not in removed}
    for name, dims in entries.items():
        for dim, positions in dims.items():
            if name in left:
                left[name][dim] -= len(positions)
    return left


def sizes_of(module: nn.Module) -> dict[str, list[int]]:
    """Name -> shape of every parameter."""
    return {name: list(parameter.shape) for name, parameter in module.named_parameters()}


def mac_prices(model: nn.Module, example: Any) -> dict[str, float]:
    """MACs of one element of each weight per example: the number of positions at which the weight is applied.

    Linear layers and convolutions have a price, and so have modules of your own whose ``weight`` takes part in
    products. Products of activations alone, as in attention, have none.

    Args:
        model: the model, not sharded.
        example: input of ``forward``; see :func:`~lightning_compress.example_inputs.call`.

    >>> mac_prices(nn.Sequential(nn.Conv1d(2, 3, 3)), torch.zeros(5, 2, 10))
    {'0.weight': 8.0}
    """
    counted = count_macs(model, example).layers
    batch = next((len(tensor) for tensor in tensors_in(example) if tensor.ndim), 1)
    names = {parameter: name for name, parameter in model.named_parameters()}
    prices: dict[str, float] = {}
    for layer_name, layer in model.named_modules(remove_duplicate=False):  # the counter may use any of a layer's names
        weight = layer._parameters.get("weight")
        if layer_name in counted and weight is not None and weight.ndim > 1:
            price = counted[layer_name] / weight.numel() / batch
            prices[names[weight]] = prices.get(names[weight], 0.0) + price
    return prices
