"""Metrics: how faithful a student is to its teacher, whatever the labels say."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

__all__ = ["Agreement", "Fidelity"]


class Agreement(Metric):
    """Share of rows for which student and teacher choose the same class: ``mean [argmax s == argmax t]``.

    >>> agreement = Agreement()
    >>> agreement(torch.tensor([[2.0, 1.0], [0.0, 1.0]]), torch.tensor([[3.0, 0.0], [1.0, 0.0]])).item()
    0.5

    Paper: Stanton et al., "Does Knowledge Distillation Really Work?", https://arxiv.org/abs/2106.05945
    (2021).
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    same: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("same", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, student: Tensor, teacher: Tensor) -> None:
        """Count rows of logits, ``[..., classes]`` each."""
        _check_logits(student, teacher)
        same = student.argmax(-1) == teacher.argmax(-1)
        self.same += same.sum()
        self.total += same.numel()

    def compute(self) -> Tensor:
        return self.same / self.total


class Fidelity(Metric):
    """Divergence from the teacher's probabilities: ``mean_rows KL(softmax(t) || softmax(s))``.

    In nats; 0 is a perfect copy.

    >>> fidelity = Fidelity()
    >>> fidelity(torch.zeros(4, 3), torch.zeros(4, 3)).item()
    0.0

    Paper: Stanton et al., "Does Knowledge Distillation Really Work?", https://arxiv.org/abs/2106.05945
    (2021).
    """

    higher_is_better = False
    is_differentiable = True
    full_state_update = False
    divergence: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("divergence", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, student: Tensor, teacher: Tensor) -> None:
        """Add rows of logits, ``[..., classes]`` each."""
        _check_logits(student, teacher)
        log_s, log_t = F.log_softmax(student.float(), -1), F.log_softmax(teacher.float(), -1)
        self.divergence += F.kl_div(log_s, log_t, reduction="sum", log_target=True)
        self.total += log_s.numel() // log_s.shape[-1]

    def compute(self) -> Tensor:
        return self.divergence / self.total


def _check_logits(student: Tensor, teacher: Tensor) -> None:
    if student.shape != teacher.shape or student.ndim == 0 or student.shape[-1] < 2:
        raise ValueError(
            "need logits of one shape and at least 2 classes, "
            f"got student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        )
