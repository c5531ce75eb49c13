"""Criteria: functions that score the importance of each weight; the least important weights are masked.

All criteria share one signature, ``Criterion = Callable[[Tensor, Tensor], Tensor]``: weight, evidence -> scores of the
weight's shape; the highest scores are kept. The evidence is the gradient of the loss with respect to the weight, unless
the criterion is marked by :func:`~lightning_compress.evidence.reads`:

- ``"gradient"``: the gradient, of the weight's shape. Scores are averaged over optimizer steps.
- ``"inputs"``: the root mean square of each input of the layer, broadcastable to the weight.
- ``"nothing"``: an empty tensor.

Weights have the outputs first: ``(out, in, ...)``. Any function of this signature is a criterion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_compress.evidence import reads

__all__ = ["Criterion", "magnitude", "movement", "random", "taylor", "wanda"]

Criterion: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Weight, evidence -> scores of the weight's shape."""


@reads("nothing", by_rows=True)
def magnitude(weight: Tensor, evidence: Tensor) -> Tensor:
    r"""Large weights are important: ``|w|``.

    Paper: Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
    https://arxiv.org/abs/1506.02626 (2015).

    >>> magnitude(torch.tensor([-2.0, 1.0]), torch.tensor([])).tolist()
    [2.0, 1.0]
    """
    return weight.abs()


@reads("gradient", by_rows=True)
def taylor(weight: Tensor, gradient: Tensor) -> Tensor:
    r"""The change of the loss when a weight is set to zero, to first order: ``|w g|``.

    Paper: Molchanov et al., "Importance Estimation for Neural Network Pruning",
    https://arxiv.org/abs/1906.10771 (2019).

    >>> taylor(torch.tensor([-2.0, 1.0]), torch.tensor([0.5, 3.0])).tolist()
    [1.0, 3.0]
    """
    return (weight * gradient).abs_()


@reads("gradient", by_rows=True)
def movement(weight: Tensor, gradient: Tensor) -> Tensor:
    r"""Weights that training moves away from zero are important: ``-w g``.

    The running mean of this score stands for the sum over steps in the paper.

    Paper: Sanh, Wolf and Rush, "Movement Pruning: Adaptive Sparsity by Fine-Tuning",
    https://arxiv.org/abs/2005.07683 (2020).

    >>> movement(torch.tensor([-2.0, 1.0]), torch.tensor([0.5, 3.0])).tolist()
    [1.0, -3.0]
    """
    return -weight * gradient


@reads("inputs", by_rows=True)
def wanda(weight: Tensor, inputs: Tensor) -> Tensor:
    r"""Large weights on large inputs are important: ``|w_ij| * rms(x_j)``; for linear and convolution layers.

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
    r"""Uniform random scores: the baseline for other criteria.

    The scores depend only on the shape and ``seed``, so a mask does not change from update to update;
    ``functools.partial`` sets another seed.

    >>> bool((random(torch.zeros(3), torch.tensor([])) == random(torch.ones(3), torch.tensor([]))).all())
    True
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(weight.shape, generator=generator).to(weight.device)
