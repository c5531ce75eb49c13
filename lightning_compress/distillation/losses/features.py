"""Losses of features: each sample's features of the student against the teacher's."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from lightning_compress.distillation.losses.tensors import check_same_shape, in_float32

__all__ = ["attention_transfer", "cosine", "mse"]


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference: ``mean (s - t)^2``; for features (hints) and for the outputs of a regression.

    Args:
        student: any shape.
        teacher: the same shape.

    Raises:
        ValueError: the shapes differ.

    >>> import torch
    >>> mse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])).item()
    2.0

    Paper: Romero et al., "FitNets: Hints for Thin Deep Nets", https://arxiv.org/abs/1412.6550 (2014).
    """
    student, teacher = in_float32(student, teacher)
    check_same_shape(student, teacher)
    return F.mse_loss(student, teacher)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Difference in direction: ``mean_samples (1 - cos(s, t))`` with each sample's features as one vector.

    Args:
        student: features, ``[batch, ...]``.
        teacher: features of the same shape.

    Raises:
        ValueError: the shapes differ.

    >>> import torch
    >>> cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])).item()
    1.0
    """
    student, teacher = in_float32(student, teacher)
    check_same_shape(student, teacher)
    return (1 - F.cosine_similarity(student.flatten(1), teacher.flatten(1))).mean()


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Distance of normalized maps of activation energy: the positions that a network attends to.

    ``mean_samples || a_s / ||a_s|| - a_t / ||a_t|| ||^2`` with ``a = sum_channels f^2`` over the positions. The numbers
    of channels may differ.

    Args:
        student: features, ``[batch, channels, *positions]``.
        teacher: features, ``[batch, other channels, *positions]``.

    Raises:
        ValueError: batch or positions differ, or there are no positions.

    >>> import torch
    >>> features = torch.ones(2, 3, 4, 4)
    >>> attention_transfer(features, features.repeat(1, 2, 1, 1)).item()
    0.0

    Paper: Zagoruyko and Komodakis, "Paying More Attention to Attention", https://arxiv.org/abs/1612.03928 (2016).
    """
    student, teacher = in_float32(student, teacher)
    if student.ndim < 3 or student.shape[2:] != teacher.shape[2:] or len(student) != len(teacher):
        raise ValueError(
            "need features [batch, channels, *positions] with equal batch and positions, "
            f"got student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        )
    maps = [F.normalize(features.square().sum(1).flatten(1)) for features in (student, teacher)]
    return (maps[0] - maps[1]).square().sum(1).mean()
