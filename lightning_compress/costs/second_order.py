"""The loss that a change of weights costs, to second order."""

from __future__ import annotations

from torch import Tensor

__all__ = ["second_order_cost"]


def second_order_cost(fisher: Tensor, weight: Tensor, projected: Tensor) -> float:
    r"""The rise of the loss when a weight is projected, to second order at a minimum.

    .. math:: \frac{1}{2} \sum_i F_i (w_i - P(w)_i)^2

    Args:
        fisher: diagonal Fisher information, of the weight's shape.
        weight: the weight.
        projected: its projection, of the same shape.

    Paper: LeCun, Denker and Solla, "Optimal Brain Damage" (1989).

    >>> from torch import tensor
    >>> second_order_cost(tensor([2.0, 1.0]), tensor([0.5, 3.0]), tensor([0.0, 2.0]))
    0.75
    """
    change = (weight - projected).double()
    return 0.5 * float((fisher.double() * change.square()).sum())
