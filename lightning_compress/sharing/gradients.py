"""Gradients: what every weight of a cluster learns, since all of them hold one value.

All share one signature, ``Gradient = Callable[[Tensor, Tensor], Tensor]``: for each cluster the sum of its weights'
gradients and their number -> the gradient that each of its weights gets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

__all__ = ["Gradient", "mean", "summed"]

Gradient: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def summed(sums: Tensor, counts: Tensor) -> Tensor:
    r"""The derivative of the loss by the shared value: ``dL/dc_k = sum_{i in k} g_i``.

    Paper: Han, Mao and Dally, "Deep Compression", https://arxiv.org/abs/1510.00149 (2016).

    >>> import torch
    >>> summed(torch.tensor([6.0]), torch.tensor([3.0])).tolist()
    [6.0]
    """
    return sums


def mean(sums: Tensor, counts: Tensor) -> Tensor:
    r"""The part of the weights' gradient that a shared value can follow: ``(1 / n_k) sum_{i in k} g_i``.

    It is the orthogonal projection of the gradient onto the weights that the codebook can represent, no longer than the
    gradient itself: the learning rate of the dense model stays right, whatever the size of the clusters.

    >>> import torch
    >>> mean(torch.tensor([6.0]), torch.tensor([3.0])).tolist()
    [2.0]
    """
    return sums / counts.clamp(min=1)
