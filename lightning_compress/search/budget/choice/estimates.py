"""Estimates: what zeros and few distinct values cost a model, and the bytes that they take in an archive.

The cost of projecting the weights ``w`` to ``P(w)`` is the second-order estimate of the increase of the loss, with the
diagonal of the Fisher information ``F`` in place of the Hessian::

    cost = 1/2 sum_i F_i (w_i - P(w)_i)^2

The bytes of a layer of ``n`` weights are those of an entropy coder, and a float for each distinct value::

    bytes = sum_v n_v log2(n / n_v) / 8 + 4 K

Papers: LeCun, Denker and Solla, "Optimal brain damage", NeurIPS (1990); Dong et al., "HAWQ-V2: Hessian aware
trace-weighted quantization of neural networks", https://arxiv.org/abs/1911.03852 (2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_compress.archive.coding.streams import entropy
from lightning_compress.costs.allocation import Option
from lightning_compress.costs.second_order import second_order_cost
from lightning_compress.search.budget.choice.codebooks import codebook
from lightning_compress.sharing.kmeans import assign

__all__ = ["LARGEST", "VALUES", "Sample", "options_of", "sample", "sparsity_for", "totals"]

VALUES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128, 256)
"""Numbers of distinct values, zero included, that a layer may get."""

LARGEST = 0.99
"""The largest fraction of zeros."""

_SAMPLED = 1 << 14  # weights of a layer that are looked at
_FLOAT = 32.0  # bits of a weight that keeps its float
_HALVINGS = 12


@dataclass(frozen=True)
class Sample:
    """Evenly spaced weights of a layer.

    Attributes:
        weights: ``(n,)``, float32 on the CPU.
        fisher: diagonal of the Fisher information of the same weights, ``(n,)``.
        each: number of weights of the layer that each of them stands for.
    """

    weights: Tensor
    fisher: Tensor
    each: float


def sample(weight: Tensor, fisher: Tensor) -> Sample:
    """Evenly spaced weights of a layer, and the Fisher information of each, two tensors of one shape."""
    stride = max(1, weight.numel() // _SAMPLED)
    weights = weight.detach().flatten()[::stride].float().cpu()
    return Sample(weights, fisher.detach().flatten()[::stride].float().cpu(), weight.numel() / len(weights))


def options_of(layer: Sample, values: Sequence[int] = VALUES) -> list[Option]:
    """The options of a layer whose zeros are fixed: numbers of distinct values, and floats.

    Args:
        layer: sample of its weights; a zero stays zero, and is one of the values.
        values: numbers of distinct values.

    >>> layer = Sample(torch.tensor([0.0, 1.0, 3.0, 3.0]), torch.tensor([1.0, 1.0, 1.0, 2.0]), 1.0)
    >>> [(option.choice, option.cost, option.size) for option in options_of(layer, [2, 3])]
    [(2, 1.55..., 4.40...), (3, 0.0, 8.75), (0, 0.0, 12.40...)]
    """
    return [*(Option(number, *_projected(layer, number)) for number in values), Option(0, *_floats(layer))]


def sparsity_for(layers: Mapping[str, Sample], number: int, budget: float) -> float:
    """The least fraction of zeros over all layers with which ``number`` distinct values in each fit the budget.

    The zeros are the weights of the smallest magnitude, over all layers. The fraction is in [0, 0.99]; at 0.99 the
    layers may still take more.
    """
    if totals(layers, 0.0, number)[1] <= budget:
        return 0.0
    low, high = 0.0, LARGEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = totals(layers, middle, number)[1] <= budget
        low, high = (low, middle) if fits else (middle, high)
    return high


def totals(layers: Mapping[str, Sample], sparsity: float, number: int) -> tuple[float, float]:
    """Cost and bytes of all layers with a fraction of zeros over all of them, and so many distinct values in each.

    Args:
        layers: name -> sample of its weights.
        sparsity: fraction of zeros, the weights of the smallest magnitude over all layers.
        number: distinct values of each layer, zero included; 0 for floats.
    """
    threshold = _threshold(list(layers.values()), sparsity)
    cost = size = 0.0
    for layer in layers.values():
        masked = layer.weights.abs() < threshold
        pruned = Sample(layer.weights.masked_fill(masked, 0.0), layer.fisher, layer.each)
        kept_cost, kept_bytes = _projected(pruned, number) if number else _floats(pruned)
        cost += kept_cost + layer.each * second_order_cost(layer.fisher, layer.weights, pruned.weights)
        size += kept_bytes
    return cost, size


def _threshold(layers: Sequence[Sample], sparsity: float) -> float:
    """The magnitude below which the given fraction of the weights lies."""
    magnitudes = torch.cat([layer.weights.abs() for layer in layers])
    shares = torch.cat([torch.full_like(layer.weights, layer.each, dtype=torch.float64) for layer in layers])
    order = magnitudes.argsort()
    below = shares[order].cumsum(0)
    place = int(torch.searchsorted(below, sparsity * below[-1]))
    return float(magnitudes[order[min(place, len(order) - 1)]])


def _projected(layer: Sample, number: int) -> tuple[float, float]:
    """Cost and bytes of a layer with so many distinct values; its zeros stay."""
    zero = layer.weights == 0
    weights, fisher = layer.weights[~zero], layer.fisher[~zero]
    zeros = len(layer.weights) - len(weights)
    centers = codebook(weights, number - (zeros > 0), pruned=zeros > 0)
    codes = assign(weights, centers).long()
    counts = torch.cat([torch.tensor([zeros]), codes.bincount(minlength=len(centers))])
    cost = second_order_cost(fisher, weights, centers[codes] if len(weights) else weights)
    return layer.each * cost, layer.each * entropy(counts.numpy()) / 8 + 4 * len(centers)


def _floats(layer: Sample) -> tuple[float, float]:
    """Cost and bytes of a layer whose weights stay floats, but for its zeros."""
    kept = int(layer.weights.count_nonzero())
    counts = torch.tensor([len(layer.weights) - kept, kept])
    return 0.0, layer.each * (entropy(counts.numpy()) + _FLOAT * kept) / 8
