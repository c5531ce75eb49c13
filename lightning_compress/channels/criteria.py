"""Criteria: the importance of each unit of a group; the least important units are removed.

All criteria share one signature, ``Criterion = Callable[[Sequence[Member]], Tensor]``: the entries of a group in each
parameter -> ``(units,)`` scores, high scores kept. Scores of different groups are compared with each other, per MAC or
parameter saved, so a score should be a fraction of a quantity of the whole model. A criterion of your own is a function
of this signature; mark it with ``@reads("nothing")`` of :mod:`lightning_compress.evidence` if it reads no gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_compress.arguments import check_tensor_answer
from lightning_compress.channels.groups import Group, Role, Slice
from lightning_compress.evidence import reads

__all__ = ["Criterion", "Member", "batchnorm_scale", "magnitude", "members", "scores_of", "taylor"]


@dataclass(frozen=True, eq=False)
class Member:
    """The entries of one parameter that belong to the units of a group.

    Attributes:
        role: relation of the parameter to a channel.
        weight: ``(units, n)``.
        gradient: ``(units, n)``, of the loss; zeros if the criterion is marked with ``@reads("nothing")``.
    """

    role: Role
    weight: Tensor
    gradient: Tensor


Criterion: TypeAlias = Callable[[Sequence[Member]], Tensor]


def members(group: Group, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> list[Member]:
    """The entries of a group in each of the weights; a missing gradient is zero."""
    found = []
    for part in group.slices:
        if part.name in weights:
            weight = weights[part.name]
            gradient = gradients.get(part.name, weight.new_zeros(()).expand_as(weight))
            found.append(Member(part.role, _rows(weight, part), _rows(gradient, part)))
    return found


def scores_of(
    criterion: Criterion, group: Group, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> Tensor:
    """The scores that a criterion gives the units of a group: ``(units,)``.

    Raises:
        TypeError: the scores are no tensor.
        ValueError: the scores have another shape.
    """
    scores = criterion(members(group, weights, gradients))
    check_tensor_answer("criterion(members)", criterion, scores)
    if scores.shape != (group.units,):
        raise ValueError(
            f"need a criterion that gives a score for each of the {group.units} units of {group.name!r}, got "
            f"scores of shape {tuple(scores.shape)}"
        )
    return scores


def _rows(tensor: Tensor, part: Slice) -> Tensor:
    channels = tensor.detach().movedim(part.dim, 0).reshape(tensor.shape[part.dim], -1)
    return channels[part.index.to(tensor.device)].flatten(1)


@reads("nothing")
def magnitude(members: Sequence[Member]) -> Tensor:
    r"""Units with large weights matter: their fraction of each weight's squared norm, summed over the weights.

    .. math:: s_u = \sum_W \|W_u\|^2 / \|W\|^2

    Paper: Li et al., "Pruning Filters for Efficient ConvNets", https://arxiv.org/abs/1608.08710 (2017).
    """
    return _fractions([m.weight.float().square().sum(1) for m in members if m.role in ("out", "in")])


@reads("gradient")
def taylor(members: Sequence[Member]) -> Tensor:
    r"""Units matter whose removal changes the loss, to first order, squared: ``(sum w g)^2`` over all their entries.

    Paper: Molchanov et al., "Importance Estimation for Neural Network Pruning",
    https://arxiv.org/abs/1906.10771 (2019).
    """
    products = [(m.weight.float() * m.gradient.float()).sum(1) for m in members if m.role != "in"]
    return torch.stack(products).sum(0).square()


@reads("nothing")
def batchnorm_scale(members: Sequence[Member]) -> Tensor:
    r"""Units matter that batch normalization scales up: their fraction of the sum of ``|gamma|``.

    A group without batch normalization is scored by :func:`magnitude`.

    Paper: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming",
    https://arxiv.org/abs/1708.06519 (2017).
    """
    scales = [m.weight.float().abs().sum(1) for m in members if m.role == "scale"]
    return _fractions(scales) if scales else magnitude(members)


def _fractions(amounts: Sequence[Tensor]) -> Tensor:
    """Each unit's fraction of every amount, summed: ``(units,)``."""
    return torch.stack([amount / amount.sum().clamp_min(1e-30) for amount in amounts]).sum(0)
