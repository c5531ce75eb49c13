"""Criteria: how important each weight is; the least important are pruned.

All criteria share one signature, ``Criterion = Callable[[Tensor, Tensor], Tensor]``: weight, evidence -> scores of the
weight's shape, high scores kept. The evidence is the gradient of the loss at the weight, unless :func:`reads` says
otherwise. A criterion of your own is a function of this signature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

__all__ = ["Criterion", "Evidence", "evidence_of", "magnitude", "movement", "random", "reads", "taylor", "wanda"]

Criterion: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Evidence: TypeAlias = Literal["gradient", "inputs", "nothing"]
_Function = TypeVar("_Function", bound=Criterion)


def reads(evidence: Evidence) -> Callable[[_Function], _Function]:
    """Mark a criterion by the evidence that it reads, so that no other is gathered.

    Args:
        evidence: ``"gradient"``, the gradient, of the weight's shape; ``"inputs"``, the root mean square of each input
            of the layer, broadcastable to the weight; ``"nothing"``, an empty tensor.
    """

    def mark(criterion: _Function) -> _Function:
        criterion.evidence = evidence  # type: ignore[attr-defined]
        return criterion

    return mark


def evidence_of(criterion: Criterion) -> Evidence:
    """The evidence that ``criterion`` reads; the gradient if it does not say.

    >>> evidence_of(magnitude), evidence_of(lambda weight, gradient: weight * gradient)
    ('nothing', 'gradient')
    """
    function = getattr(criterion, "func", criterion)  # the function inside a functools.partial
    evidence: Evidence = getattr(function, "evidence", "gradient")
    return evidence


@reads("nothing")
def magnitude(weight: Tensor, evidence: Tensor) -> Tensor:
    r"""Large weights matter: ``|w|``.

    Paper: Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
    https://arxiv.org/abs/1506.02626 (2015).

    >>> magnitude(torch.tensor([-2.0, 1.0]), torch.tensor([])).tolist()
    [2.0, 1.0]
    """
    return weight.abs()


@reads("gradient")
def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    r"""Weights matter whose removal changes the loss, to first order: ``|w g|``.

    Paper: Molchanov et al., "Importance Estimation for Neural Network Pruning",
    https://arxiv.org/abs/1906.10771 (2019).

    >>> taylor(torch.tensor([-2.0, 1.0]), torch.tensor([0.5, 3.0])).tolist()
    [1.0, 3.0]
    """
    return (weight * gradient).abs()


@reads("gradient")
def movement(weight: Tensor, gradient: Tensor) -> Tensor:
    r"""Weights matter that training moves away from zero: ``-w g``; a running mean of it is movement pruning's sum.

    Paper: Sanh, Wolf and Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning",
    https://arxiv.org/abs/2005.07683 (2020).

    >>> movement(torch.tensor([-2.0, 1.0]), torch.tensor([0.5, 3.0])).tolist()
    [1.0, -3.0]
    """
    return -weight * gradient


@reads("inputs")
def wanda(weight: Tensor, inputs: Tensor) -> Tensor:
    r"""Large weights on large inputs matter: ``|w_ij| * rms(x_j)``; for linear and convolution layers.

    Paper: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models",
    https://arxiv.org/abs/2306.11695 (2023).

    Args:
        weight: ``(out, in, ...)``.
        inputs: root mean square of each input, broadcastable to ``weight``.

    >>> wanda(torch.tensor([[-2.0, 1.0]]), torch.tensor([[1.0, 3.0]])).tolist()
    [[2.0, 3.0]]
    """
    return weight.abs() * inputs


@reads("nothing")
def random(weight: Tensor, evidence: Tensor, seed: int = 0) -> Tensor:
    r"""No weight matters more than another: uniform scores, the baseline that a criterion has to beat.

    The scores depend on the shape and ``seed`` alone, so that a mask stays what it is; ``functools.partial`` sets
    another seed.

    >>> bool((random(torch.zeros(3), torch.tensor([])) == random(torch.ones(3), torch.tensor([]))).all())
    True
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(weight.shape, generator=generator).to(weight.device)
