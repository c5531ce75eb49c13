"""Metrics of compression, to log beside those of the task."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

__all__ = ["Agreement", "Fidelity", "Sparsity"]


class Sparsity(Metric):
    r"""Fraction of zeros over all elements of all tensors seen.

    .. math:: \frac{\sum_i [w_i = 0]}{\sum_i 1}

    Args:
        kwargs: arguments of :class:`torchmetrics.Metric`.

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
        """Count the zeros of ``weight``, a tensor of any shape."""
        self.zeros += weight.numel() - weight.count_nonzero()
        self.total += weight.numel()

    def compute(self) -> Tensor:
        """The fraction, in [0, 1]; NaN if no tensor was seen."""
        return self.zeros / self.total


class Agreement(Metric):
    r"""Fraction of predictions for which two classifiers choose the same class.

    .. math:: \frac{1}{N} \sum_i [\arg\max_k a_{ik} = \arg\max_k b_{ik}]

    Compare a compressed model with the dense one, or a student with its teacher: equal accuracy does not mean equal
    predictions.

    Papers: Hooker et al., "What Do Compressed Deep Neural Networks Forget?", https://arxiv.org/abs/1911.05248 (2019);
    Stanton et al., "Does Knowledge Distillation Really Work?", https://arxiv.org/abs/2106.05945 (2021).

    Args:
        dim: dimension of the classes: -1 for ``(N, classes)`` and for tokens ``(N, T, classes)``, 1 for images
            ``(N, classes, H, W)``.
        kwargs: arguments of :class:`torchmetrics.Metric`.

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

    def __init__(self, dim: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.add_state("same", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, reference: Tensor) -> None:
        """Compare logits or probabilities of one shape, with at least 2 classes along ``dim``.

        Raises:
            ValueError: the shapes differ, or there are fewer than 2 classes.
        """
        _check_logits(logits, reference, self.dim)
        same = logits.argmax(self.dim) == reference.argmax(self.dim)
        self.same += same.sum()
        self.total += same.numel()

    def compute(self) -> Tensor:
        """The fraction, in [0, 1]; NaN if nothing was compared."""
        return self.same / self.total


class Fidelity(Metric):
    r"""Mean divergence of a model's class probabilities from a reference's, in nats; 0 for an exact copy.

    .. math:: \frac{1}{N} \sum_i \mathrm{KL}(\mathrm{softmax}(t_i) \,\|\, \mathrm{softmax}(s_i))

    Paper: Stanton et al., "Does Knowledge Distillation Really Work?", https://arxiv.org/abs/2106.05945 (2021).

    Args:
        dim: dimension of the classes, as for :class:`Agreement`.
        kwargs: arguments of :class:`torchmetrics.Metric`.

    >>> fidelity = Fidelity()
    >>> fidelity(torch.zeros(4, 3), torch.zeros(4, 3)).item()
    0.0
    """

    higher_is_better = False
    is_differentiable = True
    full_state_update = False
    divergence: Tensor
    total: Tensor

    def __init__(self, dim: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dim = dim
        self.add_state("divergence", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("total", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, reference: Tensor) -> None:
        """Add the divergences of logits from reference logits of the same shape.

        Raises:
            ValueError: the shapes differ, or there are fewer than 2 classes.
        """
        _check_logits(logits, reference, self.dim)
        log_s, log_t = F.log_softmax(logits.float(), self.dim), F.log_softmax(reference.float(), self.dim)
        self.divergence += F.kl_div(log_s, log_t, reduction="sum", log_target=True)
        self.total += log_s.numel() // log_s.shape[self.dim]

    def compute(self) -> Tensor:
        """The mean divergence; NaN if nothing was compared."""
        return self.divergence / self.total


def _check_logits(logits: Tensor, reference: Tensor, dim: int) -> None:
    shapes = tuple(logits.shape), tuple(reference.shape)
    if shapes[0] != shapes[1] or not -logits.ndim <= dim < logits.ndim or logits.shape[dim] < 2:
        raise ValueError(
            f"need logits and reference of one shape with at least 2 classes in dimension {dim}, got {shapes[0]} and "
            f"{shapes[1]}"
        )
