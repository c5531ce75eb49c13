"""Optimizers: they go on with the two factors in place of the weight.

With ``W = L R`` and the gradient ``G`` at ``W``, the gradients of the factors are ``G R^T`` and ``L^T G``. Running
means of gradients are linear in them and follow the same way. Running means of squares follow as the squares of
independent entries do, with the squared factors: ``V (R^2)^T`` and ``(L^2)^T V``. State of any other kind starts
afresh.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_compress.low_rank.layers import as_matrix

__all__ = ["Split", "split_optimizer_"]

_MEANS = {"momentum_buffer", "exp_avg", "grad_avg"}
_SQUARES = {"exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum"}  # the last is Adagrad's


@dataclass(frozen=True, eq=False)
class Split:
    """One weight that was split.

    Attributes:
        first: the parameter with the right factor.
        second: the parameter with the left factor.
        left: ``(out, rank)``.
        right: ``(rank, n)``.
        transposed: whether the weight was ``(in, out)``.
    """

    first: nn.Parameter
    second: nn.Parameter
    left: Tensor
    right: Tensor
    transposed: bool


@torch.no_grad()
def split_optimizer_(optimizer: Optimizer, splits: Mapping[Tensor, Split]) -> None:
    """Let an optimizer step the factors of each weight, in the group and at the place of the weight.

    Args:
        optimizer: changed in place.
        splits: weight -> its split.
    """
    for group in optimizer.param_groups:
        pairs = [(splits[p].first, splits[p].second) if p in splits else (p,) for p in group["params"]]
        group["params"] = [parameter for pair in pairs for parameter in pair]
    for weight, split in splits.items():
        state = optimizer.state.pop(weight, {})
        if state and all(_follows(key, value, weight) for key, value in state.items()):
            both = {key: _of_factors(key, value, split) for key, value in state.items()}
            optimizer.state[split.first] = {key: first for key, (first, _) in both.items()}
            optimizer.state[split.second] = {key: second for key, (_, second) in both.items()}


def _follows(key: str, value: Any, weight: Tensor) -> bool:
    """Whether state is known to follow: a number, or a running mean with an entry per weight."""
    if not isinstance(value, Tensor) or value.numel() == 1:
        return True
    return key in _MEANS | _SQUARES and value.shape == weight.shape


def _of_factors(key: str, value: Any, split: Split) -> tuple[Any, Any]:
    """State of the first and of the second layer."""
    if not isinstance(value, Tensor):
        return value, value
    if value.numel() == 1:
        return value.clone(), value.clone()
    left, right = (split.left.square(), split.right.square()) if key in _SQUARES else (split.left, split.right)
    matrix = as_matrix(value, split.transposed).to(left.dtype)
    first, second = left.T @ matrix, matrix @ right.T
    return first.to(value.dtype).view_as(split.first), second.to(value.dtype).view_as(split.second)
