"""The diagonal Fisher information of parameters, by the gradients of single examples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lightning_compress.example_inputs import evaluating
from lightning_compress.messages import listed

__all__ = ["BatchLoss", "GradientMoments", "diagonal_fisher", "gradient_moments"]

BatchLoss: TypeAlias = Callable[[nn.Module, Any], Tensor]
"""Module, batch -> the mean loss of the batch, one number."""


@dataclass(frozen=True, eq=False)
class GradientMoments:
    """First and second moments of the gradients of single examples.

    Attributes:
        mean: name -> mean gradient, of the parameter's shape.
        square: name -> mean squared gradient, of the parameter's shape: the diagonal of the empirical Fisher matrix.
        examples: number of examples.
    """

    mean: Mapping[str, Tensor]
    square: Mapping[str, Tensor]
    examples: int


def gradient_moments(
    module: nn.Module, examples: Iterable[Any], loss: BatchLoss, names: Collection[str] | None = None
) -> GradientMoments:
    """Moments of the gradients of single examples, in evaluation mode; the module and its gradients are left alone.

    Each example takes a forward and a backward pass of its own, since the square of a mean gradient is not the mean of
    squares.

    Args:
        module: the module, with whole parameters.
        examples: batches of one example each.
        loss: module, batch -> loss.
        names: parameters to differentiate by; by default all that require a gradient.

    Raises:
        ValueError: there are no examples, a parameter is unknown or requires no gradient, or the loss is not one number
            that depends on the parameters.

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> moments = gradient_moments(layer, torch.tensor([[[1.0]], [[3.0]]]), lambda module, x: module(x).sum())
    >>> moments.mean["weight"].item(), moments.square["weight"].item()
    (2.0, 5.0)
    """
    parameters = _chosen(module, names)
    mean = {name: torch.zeros_like(parameter, dtype=torch.float32) for name, parameter in parameters.items()}
    square = {name: torch.zeros_like(total) for name, total in mean.items()}
    count = 0
    with evaluating(module), torch.enable_grad():
        for example in examples:
            value = loss(module, example)
            _check_loss(value)
            gradients = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    mean[name] += gradient
                    square[name].addcmul_(gradient.float(), gradient.float())
            count += 1
    if not count:
        raise ValueError("need at least one example to differentiate the loss, got none")
    for total in (*mean.values(), *square.values()):
        total /= count
    return GradientMoments(mean, square, count)


def diagonal_fisher(
    module: nn.Module, examples: Iterable[Any], loss: BatchLoss, names: Collection[str] | None = None
) -> dict[str, Tensor]:
    r"""The diagonal of the empirical Fisher matrix, by the labels of the data.

    .. math:: F_i = \frac{1}{N} \sum_n \left(\frac{\partial \ell_n}{\partial w_i}\right)^2

    Where the loss is a negative log-likelihood and the model fits its data, F approximates the diagonal of the Hessian.
    The labels are those of the data and not drawn from the model, which is what "empirical" says: far from a fit, F is
    biased. Its error falls with :math:`1 / \sqrt{N}`; 500 to 2,000 examples are usual.

    Args:
        module: the module, in any mode; it is run in evaluation mode.
        examples: batches of one example each.
        loss: module, batch -> loss.
        names: parameters to differentiate by; by default all that require a gradient.

    Returns:
        name -> F, of the parameter's shape, float32.

    Raises:
        ValueError: as in :func:`gradient_moments`.

    Papers: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks",
    https://arxiv.org/abs/1612.00796 (2017); Kunstner, Balles and Hennig, "Limitations of the Empirical Fisher
    Approximation for Natural Gradient Descent", https://arxiv.org/abs/1905.12558 (2019).

    >>> layer = nn.Linear(1, 1, bias=False)
    >>> diagonal_fisher(layer, torch.tensor([[[1.0]], [[3.0]]]), lambda module, x: module(x).sum())
    {'weight': tensor([[5.]])}
    """
    return dict(gradient_moments(module, examples, loss, names).square)


def _chosen(module: nn.Module, names: Collection[str] | None) -> dict[str, nn.Parameter]:
    known = dict(module.named_parameters())
    chosen = {name for name, parameter in known.items() if parameter.requires_grad} if names is None else set(names)
    if unknown := sorted(chosen - known.keys()):
        raise ValueError(f"need names of parameters of the module, got {listed(unknown)}; there are: {listed(known)}")
    if frozen := [name for name in known if name in chosen and not known[name].requires_grad]:
        raise ValueError(f"need parameters that require a gradient, got frozen ones: {listed(frozen)}")
    if not chosen:
        raise ValueError("need a parameter that requires a gradient, got none")
    return {name: parameter for name, parameter in known.items() if name in chosen}


def _check_loss(value: object) -> None:
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        shown = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        without = " without a gradient" if isinstance(value, Tensor) and not value.requires_grad else ""
        raise ValueError(f"need a loss of one number that depends on the parameters, got {shown}{without}")
