"""Mixed bits: an average number of bits, and the choice of a number for each layer at the least estimated cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_compress.arguments import check_between, check_count, check_number
from lightning_compress.costs.allocation import Option, choose
from lightning_compress.costs.second_order import second_order_cost
from lightning_compress.messages import listed

__all__ = ["MixedBits", "choose_bits", "told"]


@dataclass(frozen=True)
class MixedBits:
    """A number of bits for each weight tensor, so that a weight takes ``average`` bits on average over all of them.

    Args:
        average: bits of a weight on average.
        choices: numbers of bits that a tensor may have, each 2 to 8.

    Raises:
        ValueError: a choice is out of its range, there are fewer than two, or ``average`` is not between them.
        TypeError: an argument is of another kind.

    >>> MixedBits(3)
    MixedBits(average=3, choices=(2, 3, 4, 5, 6, 7, 8))
    """

    average: float
    choices: Sequence[int] = (2, 3, 4, 5, 6, 7, 8)

    def __post_init__(self) -> None:
        check_number(average=self.average)
        if not isinstance(self.choices, list | tuple):
            raise TypeError(f"need choices as numbers of bits, such as (2, 4, 8), got {self.choices!r}")
        for bits in self.choices:
            check_count(0, choices=bits)
            check_between(2, 8, choices=bits)
        object.__setattr__(self, "choices", tuple(sorted(set(self.choices))))  # a config gives a list
        if len(self.choices) < 2:
            raise ValueError(f"need two choices or more, got choices={self.choices}: give the number as weight_bits")
        least, most = self.choices[0], self.choices[-1]
        if not least < self.average <= most:
            raise ValueError(
                f"need an average above the fewest bits, {least}, up to the most, {most}, got average={self.average!r}"
            )

    def __str__(self) -> str:
        return f"{self.average:g} bits on average"

    @property
    def usual(self) -> int:
        """The largest choice that is no more than the average: for a tensor that comes when all others have theirs."""
        return max(bits for bits in self.choices if bits <= self.average)


def choose_bits(
    mixed: MixedBits,
    weights: Mapping[str, Tensor],
    fisher: Mapping[str, Tensor],
    project: Callable[[str, Tensor, int], Tensor],
) -> dict[str, int]:
    r"""Choose a number of bits for each weight, at the least estimated increase of the loss.

    .. math:: \min_b \sum_l \frac{1}{2} \sum_i F_{l,i} (w_{l,i} - P_{b_l}(w_l)_i)^2 \quad \text{where} \quad
        \sum_l n_l b_l \le \bar b \sum_l n_l

    Args:
        mixed: the average, and the choices.
        weights: name -> weight, of any shape.
        fisher: name -> diagonal Fisher information of the same shape. A weight without it counts as the others do on
            average.
        project: name, weight, number of bits -> the weight on its grid.

    Returns:
        name -> number of bits.

    Papers: Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks",
    https://arxiv.org/abs/1911.03852 (2020); Shoham and Gersho, "Efficient bit allocation for an arbitrary set of
    quantizers", IEEE Transactions on Acoustics, Speech and Signal Processing 36 (1988), for the choice.

    >>> weights = {"a": torch.tensor([0.1, 0.26]), "b": torch.tensor([0.1, 0.26])}
    >>> fisher = {"a": torch.ones(2), "b": 100 * torch.ones(2)}
    >>> steps = lambda name, weight, bits: (weight * 2**bits).round() / 2**bits
    >>> choose_bits(MixedBits(3, choices=(2, 4)), weights, fisher, steps)
    {'a': 2, 'b': 4}
    """
    mean = sum(float(one.mean()) for one in fisher.values()) / len(fisher) if fisher else 1.0
    options = {}
    for name, weight in weights.items():
        known = fisher.get(name, torch.full_like(weight, mean))
        costs = {bits: second_order_cost(known, weight, project(name, weight, bits)) for bits in mixed.choices}
        options[name] = [Option(bits, cost, bits * weight.numel()) for bits, cost in costs.items()]
    total = sum(weight.numel() for weight in weights.values())
    return {name: option.choice for name, option in choose(options, mixed.average * total).items()}


def told(bits: Mapping[str, int], sizes: Mapping[str, int]) -> str:
    """The chosen numbers in words, with the average over all weights.

    Args:
        bits: name -> number of bits.
        sizes: name -> number of weights.

    >>> print(told({"a": 2, "b": 8, "c": 2}, {"a": 4, "b": 2, "c": 2}))
    3.50 bits a weight on average
      2 bits: a, c
      8 bits: b
    """
    total = sum(sizes[name] for name in bits)
    average = sum(number * sizes[name] for name, number in bits.items()) / total
    groups = {number: [name for name in bits if bits[name] == number] for number in sorted(set(bits.values()))}
    lines = [f"  {number} bits: {listed(names)}" for number, names in groups.items()]
    return "\n".join([f"{average:.2f} bits a weight on average", *lines])
