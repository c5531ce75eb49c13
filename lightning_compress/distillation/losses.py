"""Distillation losses: how far a student's answer is from its teacher's.

All losses share one signature, ``Loss = Callable[[Tensor, Tensor], Tensor]``: (student, teacher) -> scalar;
the gradient is meant for the student. ``decoupled`` alone takes the labels as a third tensor. Options are
bound with ``functools.partial`` in Python, and with the frozen dataclass of the same name
(``SoftTargets(temperature=2.0)``) in Python and in YAML. Half-precision inputs are computed in float32.

Logits have shape ``[..., classes]``: one row per sample, token or pixel. Features have shape
``[batch, channels, *positions]`` as of a convolution, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "Correlation",
    "Decoupled",
    "Loss",
    "SoftTargets",
    "attention_transfer",
    "correlation",
    "cosine",
    "decoupled",
    "mse",
    "relational_angle",
    "relational_distance",
    "similarity_preserving",
    "soft_targets",
]

# It returns a Tensor. "Any", because of a callable that returns a class jsonargparse makes a factory of that class.
Loss: TypeAlias = Callable[..., Any]


def soft_targets(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Kullback-Leibler divergence of softened class probabilities.

    ``T^2 mean_rows KL(softmax(t / T) || softmax(s / T))``; the factor keeps the gradient's size over
    temperatures.

    Args:
        student: logits, ``[..., classes]``.
        teacher: logits of the same shape.
        temperature: ``T`` above 0; the higher, the more the small probabilities count.

    Raises:
        ValueError: the shapes differ, there are fewer than 2 classes, or ``temperature <= 0``.

    >>> logits = torch.tensor([[2.0, 0.0, -1.0]])
    >>> soft_targets(logits, logits).item()
    0.0

    Paper: Hinton et al., "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531
    (2015).
    """
    student, teacher = _logits(student, teacher, temperature)
    log_s, log_t = F.log_softmax(student / temperature, -1), F.log_softmax(teacher / temperature, -1)
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True) * temperature**2


def decoupled(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    beta: float = 8.0,
    temperature: float = 4.0,
) -> Tensor:
    """Soft targets taken apart: how sure the teacher is of the label, and how it ranks the other classes.

    ``T^2 (alpha KL(b_t || b_s) + beta KL(q_t || q_s))`` with ``b = (p_label, 1 - p_label)`` and ``q`` the
    probabilities of the other classes, renormalised; ``p = softmax(logits / T)``. Soft targets are the case
    ``alpha = 1``, ``beta = 1 - p_label`` of the teacher.

    Args:
        student: logits, ``[..., classes]``.
        teacher: logits of the same shape.
        labels: true classes, integers ``[...]``.
        alpha: weight of the label's part.
        beta: weight of the other classes' part.
        temperature: ``T`` above 0.

    Raises:
        ValueError: shapes that do not fit, fewer than 2 classes, or ``temperature <= 0``.

    >>> logits = torch.tensor([[2.0, 0.0, -1.0]])
    >>> decoupled(logits, logits, torch.tensor([0])).item()
    0.0

    Paper: Zhao et al., "Decoupled Knowledge Distillation", https://arxiv.org/abs/2203.08679 (2022).
    """
    student, teacher = _logits(student, teacher, temperature)
    labels = labels.flatten()
    if len(labels) != len(student):
        raise ValueError(f"need one label for each of {len(student)} rows of logits, got {len(labels)}")
    log_s, log_t = F.log_softmax(student / temperature, -1), F.log_softmax(teacher / temperature, -1)
    is_label = F.one_hot(labels, student.shape[-1]).bool()

    def binary(log_p: Tensor) -> Tensor:
        others = log_p.masked_fill(is_label, -torch.inf).logsumexp(-1)
        return torch.stack((log_p[is_label], others), -1)

    def ranking(log_p: Tensor) -> Tensor:
        return F.log_softmax(log_p[~is_label].view(len(log_p), -1), -1)

    target = F.kl_div(binary(log_s), binary(log_t), reduction="batchmean", log_target=True)
    others = F.kl_div(ranking(log_s), ranking(log_t), reduction="batchmean", log_target=True)
    return (alpha * target + beta * others) * temperature**2


def correlation(
    student: Tensor, teacher: Tensor, beta: float = 1.0, gamma: float = 1.0, temperature: float = 1.0
) -> Tensor:
    """Asks for the teacher's relations alone: Pearson correlation over classes and over samples (DIST).

    ``T^2 (beta mean_rows (1 - corr(p_s, p_t)) + gamma mean_classes (1 - corr(p_s, p_t)))``,
    ``p = softmax(logits / T)``. A gentler demand than equal probabilities when the teacher is much stronger.

    Args:
        student: logits, ``[..., classes]``.
        teacher: logits of the same shape.
        beta: weight of the correlation over the classes of a row.
        gamma: weight of the correlation over the rows of a class.
        temperature: ``T`` above 0.

    Raises:
        ValueError: the shapes differ, there are fewer than 2 classes, or ``temperature <= 0``.

    >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]])
    >>> round(correlation(logits, logits).item(), 4)
    0.0

    Paper: Huang et al., "Knowledge Distillation from A Stronger Teacher", https://arxiv.org/abs/2205.10536
    (2022).
    """
    student, teacher = _logits(student, teacher, temperature)
    p_s, p_t = F.softmax(student / temperature, -1), F.softmax(teacher / temperature, -1)

    def apart(a: Tensor, b: Tensor, dim: int) -> Tensor:
        centred = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
        return (1 - F.cosine_similarity(*centred, dim=dim)).mean()

    return (beta * apart(p_s, p_t, -1) + gamma * apart(p_s, p_t, 0)) * temperature**2


def mse(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean squared difference: ``mean (s - t)^2``; for features (hints), and for the outputs of a regression.

    Args:
        student: any shape.
        teacher: the same shape.

    Raises:
        ValueError: the shapes differ.

    >>> mse(torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])).item()
    2.0

    Paper: Romero et al., "FitNets: Hints for Thin Deep Nets", https://arxiv.org/abs/1412.6550 (2014).
    """
    student, teacher = _pair(student, teacher)
    _same_shape(student, teacher)
    return F.mse_loss(student, teacher)


def cosine(student: Tensor, teacher: Tensor) -> Tensor:
    """Difference in direction: ``mean_samples (1 - cos(s, t))`` with each sample's features as one vector.

    Args:
        student: features, ``[batch, ...]``.
        teacher: features of the same shape.

    Raises:
        ValueError: the shapes differ.

    >>> cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])).item()
    1.0
    """
    student, teacher = _pair(student, teacher)
    _same_shape(student, teacher)
    return (1 - F.cosine_similarity(student.flatten(1), teacher.flatten(1))).mean()


def attention_transfer(student: Tensor, teacher: Tensor) -> Tensor:
    """Where the networks look: distance of normalised maps of activation energy.

    ``mean_samples || a_s / ||a_s|| - a_t / ||a_t|| ||^2`` with ``a = sum_channels f^2`` over the positions.
    Channels may differ.

    Args:
        student: features, ``[batch, channels, *positions]``.
        teacher: features, ``[batch, other channels, *positions]``.

    Raises:
        ValueError: batch or positions differ, or there are no positions.

    >>> features = torch.ones(2, 3, 4, 4)
    >>> attention_transfer(features, features.repeat(1, 2, 1, 1)).item()
    0.0

    Paper: Zagoruyko and Komodakis, "Paying More Attention to Attention", https://arxiv.org/abs/1612.03928
    (2016).
    """
    student, teacher = _pair(student, teacher)
    if student.ndim < 3 or student.shape[2:] != teacher.shape[2:] or len(student) != len(teacher):
        raise ValueError(
            "need features [batch, channels, *positions] with equal batch and positions, "
            f"got student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        )
    maps = [F.normalize(features.square().sum(1).flatten(1)) for features in (student, teacher)]
    return (maps[0] - maps[1]).square().sum(1).mean()


def relational_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Distances between the samples of a batch, each relative to the mean distance (RKD-D).

    ``mean_ij huber(d_s(i, j), d_t(i, j))`` with ``d(i, j) = ||f_i - f_j|| / mean_kl ||f_k - f_l||``. Shapes
    of a sample may differ.

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
    student, teacher = _rows(student, teacher)

    def distances(rows: Tensor) -> Tensor:
        pairs = F.pdist(rows)
        return pairs / pairs.mean().clamp_min(torch.finfo(pairs.dtype).tiny)

    return F.smooth_l1_loss(distances(student), distances(teacher))


def relational_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Angles in the triangles that the samples of a batch form (RKD-A).

    ``mean_ijk huber(c_s(i, j, k), c_t(i, j, k))`` with ``c(i, j, k)`` the cosine of the angle at sample
    ``j``. Memory grows with the cube of the batch.

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
    student, teacher = _rows(student, teacher)

    def cosines(rows: Tensor) -> Tensor:
        edges = F.normalize(rows[None] - rows[:, None], dim=-1)  # [at j, to i, :]
        return edges @ edges.transpose(1, 2)

    return F.smooth_l1_loss(cosines(student), cosines(teacher))


def similarity_preserving(student: Tensor, teacher: Tensor) -> Tensor:
    """Which samples of a batch look alike: distance of the row-normalised similarity matrices.

    ``||G_s - G_t||_F^2 / batch^2`` with ``G = normalise_rows(F F^T)``. Shapes of a sample may differ.

    Args:
        student: features, ``[batch, ...]``, at least 2 samples.
        teacher: features, ``[batch, ...]``.

    Raises:
        ValueError: the batches differ or hold a single sample.

    >>> features = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    >>> round(similarity_preserving(features, 3 * features).item(), 6)
    0.0

    Paper: Tung and Mori, "Similarity-Preserving Knowledge Distillation", https://arxiv.org/abs/1907.09682
    (2019).
    """
    student, teacher = _rows(student, teacher)
    return F.mse_loss(F.normalize(student @ student.T), F.normalize(teacher @ teacher.T))


@dataclass(frozen=True)
class SoftTargets:
    """``soft_targets`` with its temperature bound.

    Raises:
        ValueError: ``temperature <= 0``.

    >>> SoftTargets(2.0)(torch.zeros(1, 3), torch.zeros(1, 3)).item()
    0.0
    """

    temperature: float = 4.0

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        return soft_targets(student, teacher, self.temperature)


@dataclass(frozen=True)
class Decoupled:
    """``decoupled`` with its options bound; its term needs ``labels``.

    Raises:
        ValueError: ``temperature <= 0``.

    >>> Decoupled(beta=2.0)(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([1])).item()
    0.0
    """

    alpha: float = 1.0
    beta: float = 8.0
    temperature: float = 4.0

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return decoupled(student, teacher, labels, self.alpha, self.beta, self.temperature)


@dataclass(frozen=True)
class Correlation:
    """``correlation`` with its options bound.

    Raises:
        ValueError: ``temperature <= 0``.

    >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]])
    >>> round(Correlation(beta=2.0)(logits, logits).item(), 4)
    0.0
    """

    beta: float = 1.0
    gamma: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        return correlation(student, teacher, self.beta, self.gamma, self.temperature)


def _pair(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one dtype of at least float32: sums of half-precision squares overflow."""
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.to(dtype)


def _same_shape(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape:
        raise ValueError(
            f"need student and teacher of one shape, got student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        )


def _logits(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Both as rows of logits, ``[rows, classes]``."""
    _check_temperature(temperature)
    _same_shape(student, teacher)
    if student.ndim == 0 or student.shape[-1] < 2:
        raise ValueError(f"need logits of at least 2 classes, got shape {tuple(student.shape)}")
    student, teacher = _pair(student, teacher)
    return student.reshape(-1, student.shape[-1]), teacher.reshape(-1, teacher.shape[-1])


def _rows(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Each sample as one vector, ``[batch, features]``."""
    if len(student) != len(teacher) or len(student) < 2:
        raise ValueError(f"need one batch of at least 2 samples, got student {len(student)}, teacher {len(teacher)}")
    student, teacher = _pair(student, teacher)
    return student.flatten(1), teacher.flatten(1)


def _check_temperature(temperature: float) -> None:
    if not temperature > 0:
        raise ValueError(f"need temperature > 0, got temperature={temperature}")
