"""Groups: the channels of a model, and everything that lives and dies with each of them.

A channel of one layer is an entry of many tensors: a row of the weight that produces it, an entry of its bias and of
the batch normalisation behind it, a column of every weight that consumes it; where layers are added, multiplied or
gathered into attention heads, it is tied to channels of other layers. Such a bundle is a *unit*. The units of a layer
form a :class:`Group`. Groups are plain data: what is masked, what is cut and what it costs is read off them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["Dropped", "Group", "Role", "Slice", "dropped", "hollowed", "mask_", "sizes_of", "total"]

Role: TypeAlias = Literal["out", "in", "scale", "other"]
"""What a tensor is to a channel: the weight that produces it, one that consumes it, its batch norm scale, the rest."""

Dropped: TypeAlias = dict[str, dict[int, Tensor]]
"""Name of a tensor -> dimension -> positions along it that are removed, ascending and without repetition."""


@dataclass(frozen=True, eq=False)
class Slice:
    """The entries of one tensor that belong to the units of a group.

    Attributes:
        name: the tensor's name in the state dict.
        dim: the dimension along which the units lie.
        index: ``(units, k)``: the positions along ``dim`` that belong to each unit.
        role: what the tensor is to a channel.
    """

    name: str
    dim: int
    index: Tensor
    role: Role


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can be removed one by one, and all the tensor entries that go with them.

    Attributes:
        name: name of the layer that produces the channels, the first of them if there are several.
        slices: entries of parameters and buffers.
        width: channels of that layer in one unit: 1, or the size of an attention head.
        counters: ``(module name, attribute, amount)``: integer attributes that shrink by ``amount`` with each unit,
            such as the number of heads.
        branch: layers that have nothing left to do once all units are gone -> whether the bias of such a layer stays.
            Empty where one unit has to stay.
    """

    name: str
    slices: tuple[Slice, ...]
    width: int = 1
    counters: tuple[tuple[str, str, int], ...] = field(default=())
    branch: Mapping[str, bool] = field(default_factory=dict)

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.slices[0].index)

    def hollowed(self, names: Collection[str]) -> set[str]:
        """Those of ``names`` that are parameters of its branch and go with it."""
        kept = {f"{layer}.bias" for layer, biased in self.branch.items() if biased}
        return {name for name in names if name.rpartition(".")[0] in self.branch and name not in kept}

    def parameters(self, names: Collection[str]) -> set[str]:
        """Those of ``names`` that become smaller, or go, with its units."""
        return {part.name for part in self.slices if part.name in names} | self.hollowed(names)

    def takes_branch(self, removed: Mapping[str, Tensor]) -> bool:
        """Whether its layers go as a whole; ``removed`` as in :func:`dropped`."""
        return bool(self.branch) and self.name in removed and bool(removed[self.name].all())


def dropped(groups: Sequence[Group], removed: Mapping[str, Tensor]) -> Dropped:
    """Translate removed units into removed entries of tensors.

    Args:
        groups: the groups.
        removed: group name -> ``(units,)`` bool, True where a unit is removed.

    >>> group = Group("fc1", (Slice("fc1.weight", 0, torch.tensor([[0], [1], [2]]), "out"),))
    >>> dropped([group], {"fc1": torch.tensor([True, False, True])})
    {'fc1.weight': {0: tensor([0, 2])}}
    """
    found: dict[str, dict[int, list[Tensor]]] = {}
    for group in groups:
        if group.name in removed and removed[group.name].any():
            for part in group.slices:
                positions = part.index[removed[group.name]].flatten()
                found.setdefault(part.name, {}).setdefault(part.dim, []).append(positions)
    return {
        name: {dim: torch.unique(torch.cat(pieces)) for dim, pieces in by_dim.items()} for name, by_dim in found.items()
    }


def hollowed(groups: Sequence[Group], removed: Mapping[str, Tensor]) -> dict[str, bool]:
    """Name of each layer that goes with a branch -> whether its bias stays; arguments as for :func:`dropped`."""
    return {name: biased for group in groups if group.takes_branch(removed) for name, biased in group.branch.items()}


def mask_(tensors: Mapping[str, Tensor], gone: Dropped) -> None:
    """Set the removed entries of each tensor to zero, in place; tensors without any are left alone."""
    for name, tensor in tensors.items():
        for dim, positions in gone.get(name, {}).items():
            tensor.index_fill_(dim, positions.to(tensor.device), 0)


def total(sizes: Mapping[str, Sequence[int]], prices: Mapping[str, float]) -> float:
    """Sum of the prices of all elements: MACs or parameters.

    Args:
        sizes: name -> shape.
        prices: name -> price of one element; a tensor without a price is free, as is one without a size.

    >>> total({"fc.weight": (3, 4), "fc.bias": (3,)}, {"fc.weight": 2.0})
    24.0
    """
    return float(sum(price * torch.Size(sizes[name]).numel() for name, price in prices.items() if name in sizes))


def sizes_of(module: nn.Module) -> dict[str, list[int]]:
    """Name -> shape of every parameter."""
    return {name: list(parameter.shape) for name, parameter in module.named_parameters()}
