"""Gradients: functions that turn the gradients of the weights of a cluster into the gradient of their shared value.

All share one signature, ``Gradient = Callable[[Tensor, Tensor], Tensor]``: sum of the gradients of each cluster's
weights, number of these weights -> the gradient that each of the weights gets. Any function of this signature can be
passed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

__all__ = ["Gradient", "mean", "summed"]

Gradient: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Sum of the gradients of each cluster, number of its weights -> gradient of each of its weights; all ``(codes,)``."""


def summed(sums: Tensor, counts: Tensor) -> Tensor:
    r"""The derivative of the loss with respect to the shared value: ``dL/dc_k = sum_{i in k} g_i``.

    Paper: Han, Mao and Dally, "Deep Compression", https://arxiv.org/abs/1510.00149 (2016).

    >>> import torch
    >>> summed(torch.tensor([6.0]), torch.tensor([3.0])).tolist()
    [6.0]
    """
    return sums


def mean(sums: Tensor, counts: Tensor) -> Tensor:
    r"""The mean gradient of the weights of a cluster: ``(1 / n_k) sum_{i in k} g_i``.

    It is the orthogonal projection of the gradient onto the weights that the codebook can represent. Its norm is not
    larger than that of the gradient, so the learning rate of the dense model suits clusters of every size.

    >>> import torch
    >>> mean(torch.tensor([6.0]), torch.tensor([3.0])).tolist()
    [2.0]
    """
    return sums / counts.clamp(min=1)
