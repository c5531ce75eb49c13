"""Losses of relations: the geometry of a batch's samples; a sample's features may differ in shape."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_compress.distillation.losses.tensors import rows_of_samples

__all__ = ["relational_angle", "relational_distance", "similarity_preserving"]


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Distances between the samples of a batch, each relative to the mean distance (RKD-D).

    ``mean_ij huber(d_s(i, j), d_t(i, j))`` with ``d(i, j) = ||f_i - f_j|| / mean_kl ||f_k - f_l||``.

    Args:
        student: features, ``[batch, ...]``, at least 2 samples.
        teacher: features, ``[batch, ...]``.

    Raises:
        ValueError: the batches differ or hold a single sample.

    >>> features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> round(relational_distance(features, 3 * features).item(), 6)
    0.0

    Paper: Park et al., "Relational Knowledge Distillation", https://arxiv.org/abs/1904.05068 (2019).
    """
    student, teacher = rows_of_samples(student, teacher)
    return F.smooth_l1_loss(_relative_distances(student), _relative_distances(teacher))


def relational_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Angles in the triangles that the samples of a batch form (RKD-A).

    ``mean_ijk huber(c_s(i, j, k), c_t(i, j, k))`` with ``c(i, j, k)`` the cosine of the angle at sample ``j``. Memory
    grows with the cube of the batch.

    Args:
        student: features, ``[batch, ...]``, at least 2 samples.
        teacher: features, ``[batch, ...]``.

    Raises:
        ValueError: the batches differ or hold a single sample.

    >>> features = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]])
    >>> round(relational_angle(features, 3 * features).item(), 6)
    0.0

    Paper: Park et al., "Relational Knowledge Distillation", https://arxiv.org/abs/1904.05068 (2019).
    """
    student, teacher = rows_of_samples(student, teacher)
    return F.smooth_l1_loss(_cosines(student), _cosines(teacher))


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Similarities between the samples of a batch: distance of the similarity matrices with normalized rows.

    ``||G_s - G_t||_F^2 / batch^2`` with ``G = normalize_rows(F F^T)``.

    Args:
        student: features, ``[batch, ...]``, at least 2 samples.
        teacher: features, ``[batch, ...]``.

    Raises:
        ValueError: the batches differ or hold a single sample.

    >>> features = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    >>> round(similarity_preserving(features, 3 * features).item(), 6)
    0.0

    Paper: Tung and Mori, "Similarity-Preserving Knowledge Distillation", https://arxiv.org/abs/1907.09682 (2019).
    """
    student, teacher = rows_of_samples(student, teacher)
    return F.mse_loss(F.normalize(student @ student.T), F.normalize(teacher @ teacher.T))


def _relative_distances(rows: Tensor) -> Tensor:
    distances = F.pdist(rows)
    return distances / distances.mean().clamp_min(torch.finfo(distances.dtype).tiny)


def _cosines(rows: Tensor) -> Tensor:
    """Cosine of the angle at sample j between samples i and k, ``[j, i, k]``."""
    edges = F.normalize(rows[None] - rows[:, None], dim=-1)  # [j, i, features]
    return edges @ edges.transpose(1, 2)
