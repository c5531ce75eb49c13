"""Metrics of compression, to log beside those of the task."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

__all__ = ["Agreement", "Sparsity"]


class Sparsity(Metric):
    """Share of zeros: ``sum_i [w_i = 0] / sum_i 1`` over all elements of all tensors seen.

    >>> sparsity = Sparsity()
    >>> sparsity.update(torch.tensor([[0.0, 2.0], [0.0, 0.0]]))
    >>> sparsity.compute().item()
    0.75
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    zeros: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("zeros", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, weight: Tensor) -> None:
        """Count the zeros of ``weight``, of any shape."""
        self.zeros += weight.numel() - weight.count_nonzero()
        self.total += weight.numel()

    def compute(self) -> Tensor:
        """The share, in [0, 1]; NaN if nothing was seen."""
        return self.zeros / self.total


class Agreement(Metric):
    """Share of inputs that two classifiers, the dense and the compressed one say, put into the same class.

        sum_i [argmax_k a_ik = argmax_k b_ik] / N

    A compressed model may keep its accuracy and yet err elsewhere. Paper: Hooker et al., "What Do Compressed Deep
    Neural Networks Forget?", https://arxiv.org/abs/1911.05248 (2019).

    >>> agreement = Agreement()
    >>> agreement.update(torch.tensor([[0.1, 0.9], [0.8, 0.2]]), torch.tensor([[3.0, 5.0], [1.0, 2.0]]))
    >>> agreement.compute().item()
    0.5
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False
    same: Tensor
    total: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("same", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, reference: Tensor) -> None:
        """Compare two sets of logits or probabilities, each ``(N, classes, ...)``.

        Raises:
            ValueError: the shapes differ.
        """
        if logits.shape != reference.shape:
            raise ValueError(
                f"need logits and reference of one shape, got {tuple(logits.shape)} and {tuple(reference.shape)}"
            )
        same = logits.argmax(1) == reference.argmax(1)
        self.same += same.sum()
        self.total += same.numel()

    def compute(self) -> Tensor:
        """The share, in [0, 1]; NaN if nothing was seen."""
        return self.same / self.total
