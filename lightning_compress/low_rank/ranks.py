"""Ranks: how many singular values each layer keeps.

A matrix ``(m, n)`` has ``m n`` parameters; split into factors of rank ``r`` it has ``r (m + n)``. A layer is split only
where that is less; a layer that is missing in a choice of ranks stays whole.

Papers: Jaderberg, Vedaldi and Zisserman, "Speeding up Convolutional Neural Networks with Low Rank Expansions",
https://arxiv.org/abs/1405.3866 (2014); Idelbayev and Carreira-Perpinan, "Low-Rank Compression of Neural Nets: Learning
the Rank of Each Layer", CVPR (2020).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Size", "ranks_by_energy", "ranks_by_parameters"]


@dataclass(frozen=True)
class Size:
    """The shape of a matrix.

    >>> size = Size(64, 576)
    >>> size.whole, size.split(10), size.most
    (36864, 6400, 57)
    """

    outputs: int
    inputs: int

    @property
    def whole(self) -> int:
        """Parameters of the matrix."""
        return self.outputs * self.inputs

    @property
    def full(self) -> int:
        """The largest rank of the matrix."""
        return min(self.outputs, self.inputs)

    @property
    def most(self) -> int:
        """The largest rank at which two factors have fewer parameters than the matrix; 0 if there is none."""
        return (self.whole - 1) // (self.outputs + self.inputs)

    def split(self, rank: int) -> int:
        """Parameters of two factors."""
        return rank * (self.outputs + self.inputs)


def ranks_by_energy(
    energies: Mapping[str, Sequence[float]], sizes: Mapping[str, Size], energy: float
) -> dict[str, int]:
    """The smallest rank of each layer that keeps at least the fraction ``energy``.

    Args:
        energies: name -> squared singular values as fractions of their sum, largest first.
        sizes: name -> shape of the matrix.
        energy: fraction of the squared singular values to keep.

    >>> ranks_by_energy({"a": [0.7, 0.2, 0.1, 0.0]}, {"a": Size(4, 20)}, 0.9)
    {'a': 2}
    """
    ranks = {}
    for name, values in energies.items():
        kept, rank = 0.0, 0
        while rank < len(values) and kept < energy - 1e-12:
            kept += values[rank]
            rank += 1
        if rank <= sizes[name].most:
            ranks[name] = max(rank, 1)
    return ranks


def ranks_by_parameters(
    energies: Mapping[str, Sequence[float]], sizes: Mapping[str, Size], budget: int
) -> dict[str, int]:
    """Ranks with at most ``budget`` parameters in all layers together, so that little energy is lost.

    Layers give up what costs least energy per parameter: at first a whole layer becomes two factors of the rank at
    which that is least, from then on it loses one singular value at a time. The last step may save more than is
    needed; what is left of the budget goes to the singular values that bring the most energy per parameter. That is the
    optimum of ``lost energy + price * parameters`` at the price of the last step, and at most one layer's step away
    from the optimum under the budget.

    Args:
        energies: name -> squared singular values as fractions of their sum, largest first.
        sizes: name -> shape of the matrix.
        budget: parameters to keep, of all the layers together.

    Raises:
        ValueError: the budget is below that of rank 1 in every layer.

    >>> ranks_by_parameters({"a": [0.9, 0.1], "b": [0.5, 0.5]}, {"a": Size(2, 9), "b": Size(2, 9)}, 30)
    {'a': 1}
    """
    steps = [step for name in energies for step in _steps(name, energies[name], sizes[name])]
    ranks: dict[str, int] = {}
    left = sum(size.whole for size in sizes.values())
    for _, name, rank in sorted(steps, key=lambda step: (step[0], step[1], -step[2])):
        if left <= budget:
            break
        left += sizes[name].split(rank) - _parameters(sizes[name], ranks.get(name))
        ranks[name] = rank
    if left > budget:
        raise ValueError(f"need a budget of at least {left} parameters, at which every layer has rank 1, got {budget}")
    _fill(ranks, energies, sizes, budget - left)
    return {name: ranks[name] for name in energies if name in ranks}


def _steps(name: str, energies: Sequence[float], size: Size) -> list[tuple[float, str, int]]:
    """``(energy lost per parameter saved, name, rank after the step)``, the losses rising."""
    lost = sum(energies[size.most :])
    best, first = float("inf"), 0
    for rank in range(size.most, 0, -1):
        loss = lost / (size.whole - size.split(rank))
        if loss < best or first == 0:
            best, first = loss, rank
        lost += energies[rank - 1]
    later = range(first - 1, 0, -1)
    price = size.outputs + size.inputs
    return [*([(best, name, first)] if first else []), *((energies[rank] / price, name, rank) for rank in later)]


def _fill(ranks: dict[str, int], energies: Mapping[str, Sequence[float]], sizes: Mapping[str, Size], room: int) -> None:
    """Spend ``room`` parameters on the singular values that bring most energy per parameter."""
    while True:
        fitting = {
            name: energies[name][rank] / sizes[name].split(1)
            for name, rank in ranks.items()
            if rank < sizes[name].most and sizes[name].split(1) <= room
        }
        if not fitting:
            return
        name = max(fitting, key=lambda name: fitting[name])
        ranks[name] += 1
        room -= sizes[name].split(1)


def _parameters(size: Size, rank: int | None) -> int:
    return size.whole if rank is None else size.split(rank)
