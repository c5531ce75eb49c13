"""Losses of logits: class probabilities of student and teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_compress.arguments import check_number
from lightning_compress.distillation.losses.tensors import rows_of_logits

__all__ = ["Correlation", "Decoupled", "SoftTargets"]


@dataclass(frozen=True)
class SoftTargets:
    """Kullback-Leibler divergence of softened class probabilities.

    ``T^2 mean_rows KL(softmax(t / T) || softmax(s / T))``; the factor ``T^2`` keeps the size of the gradient over
    temperatures. Student and teacher are logits ``[..., classes]`` of one shape.

    Args:
        temperature: ``T`` above 0; at a higher temperature small probabilities count more.

    Raises:
        TypeError: ``temperature`` is not a number.
        ValueError: ``temperature <= 0``; when called, the shapes differ or there are fewer than 2 classes.

    >>> logits = torch.tensor([[2.0, 0.0, -1.0]])
    >>> SoftTargets(temperature=2.0)(logits, logits).item()
    0.0

    Paper: Hinton et al., "Distilling the Knowledge in a Neural Network", https://arxiv.org/abs/1503.02531 (2015).
    """

    temperature: float = 4.0

    def __post_init__(self) -> None:
        _check_temperature(self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = rows_of_logits(student, teacher)
        log_s, log_t = F.log_softmax(student / self.temperature, -1), F.log_softmax(teacher / self.temperature, -1)
        return _divergence(log_s, log_t) * self.temperature**2


@dataclass(frozen=True)
class Decoupled:
    """Soft targets in two parts: the probability of the label, and the ranking of the other classes (DKD).

    ``T^2 (alpha KL(b_t || b_s) + beta KL(q_t || q_s))`` with ``b = (p_label, 1 - p_label)`` and ``q`` the probabilities
    of the other classes, normalized again; ``p = softmax(logits / T)``. Soft targets are the case ``alpha = 1``,
    ``beta = 1 - p_label`` of the teacher.

    Student and teacher are logits ``[..., classes]`` of one shape. The label of a row is the teacher's most probable
    class, or the true class where ``Term(Decoupled(), labels=Item(1))`` passes integers ``[...]`` as the third tensor.

    Args:
        alpha: weight of the label's part.
        beta: weight of the other classes' part.
        temperature: ``T`` above 0.

    Raises:
        TypeError: an argument is not a number.
        ValueError: ``temperature <= 0``, or a negative weight; when called, shapes that do not fit or fewer than 2
            classes.

    >>> logits = torch.tensor([[2.0, 0.0, -1.0]])
    >>> Decoupled(beta=2.0)(logits, logits, torch.tensor([0])).item()
    0.0

    Paper: Zhao et al., "Decoupled Knowledge Distillation", https://arxiv.org/abs/2203.08679 (2022).
    """

    alpha: float = 1.0
    beta: float = 8.0
    temperature: float = 4.0

    def __post_init__(self) -> None:
        check_number(alpha=self.alpha, beta=self.beta)
        for name in ("alpha", "beta"):
            if getattr(self, name) < 0:
                raise ValueError(f"need {name} >= 0, got {name}={getattr(self, name)}")
        _check_temperature(self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor, labels: Tensor | None = None) -> Tensor:
        student, teacher = rows_of_logits(student, teacher)
        labels = teacher.argmax(-1) if labels is None else labels.flatten()
        if len(labels) != len(student):
            raise ValueError(f"need one label for each of {len(student)} rows of logits, got {len(labels)}")
        is_label = F.one_hot(labels, student.shape[-1]).bool()
        log_s, log_t = F.log_softmax(student / self.temperature, -1), F.log_softmax(teacher / self.temperature, -1)
        label = _divergence(_label_or_not(log_s, is_label), _label_or_not(log_t, is_label))
        others = _divergence(_other_classes(log_s, is_label), _other_classes(log_t, is_label))
        return (self.alpha * label + self.beta * others) * self.temperature**2


@dataclass(frozen=True)
class Correlation:
    """Pearson correlation of class probabilities, over classes and over samples (DIST).

    ``T^2 (beta mean_rows (1 - corr(p_s, p_t)) + gamma mean_classes (1 - corr(p_s, p_t)))`` with
    ``p = softmax(logits / T)``. Correlation asks less than equal probabilities, which helps when the teacher is much
    stronger. Student and teacher are logits ``[..., classes]`` of one shape.

    Args:
        beta: weight of the correlation over the classes of a row.
        gamma: weight of the correlation over the rows of a class.
        temperature: ``T`` above 0.

    Raises:
        TypeError: an argument is not a number.
        ValueError: ``temperature <= 0``; when called, the shapes differ or there are fewer than 2 classes.

    >>> logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]])
    >>> round(Correlation(beta=2.0)(logits, logits).item(), 4)
    0.0

    Paper: Huang et al., "Knowledge Distillation from A Stronger Teacher", https://arxiv.org/abs/2205.10536 (2022).
    """

    beta: float = 1.0
    gamma: float = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_number(beta=self.beta, gamma=self.gamma)
        _check_temperature(self.temperature)

    def __call__(self, student: Tensor, teacher: Tensor) -> Tensor:
        student, teacher = rows_of_logits(student, teacher)
        p_s, p_t = F.softmax(student / self.temperature, -1), F.softmax(teacher / self.temperature, -1)
        distance = self.beta * _decorrelation(p_s, p_t, -1) + self.gamma * _decorrelation(p_s, p_t, 0)
        return distance * self.temperature**2


def _divergence(log_s: Tensor, log_t: Tensor) -> Tensor:
    """``mean_rows KL(t || s)`` of log probabilities ``[rows, classes]``."""
    return F.kl_div(log_s, log_t, reduction="batchmean", log_target=True)


def _label_or_not(log_p: Tensor, is_label: Tensor) -> Tensor:
    """Log probabilities of two events, the label and any other class: ``[rows, 2]``."""
    others = log_p.masked_fill(is_label, -torch.inf).logsumexp(-1)
    return torch.stack((log_p[is_label], others), -1)


def _other_classes(log_p: Tensor, is_label: Tensor) -> Tensor:
    """Log probabilities among the classes other than the label: ``[rows, classes - 1]``."""
    return F.log_softmax(log_p[~is_label].view(len(log_p), -1), -1)


def _decorrelation(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """``mean (1 - corr(a, b))`` with the correlation along ``dim``."""
    centered = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
    return (1 - F.cosine_similarity(*centered, dim=dim)).mean()


def _check_temperature(temperature: float) -> None:
    check_number(temperature=temperature)
    if not temperature > 0:
        raise ValueError(f"need temperature > 0, got temperature={temperature}")
