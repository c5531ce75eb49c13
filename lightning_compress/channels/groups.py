"""Groups: the channels of a model, with every tensor entry that belongs to each of them.

A channel of one layer is an entry of many tensors: a row of the weight that produces it, an entry of the bias and of
the following batch normalization, a column of every weight that consumes it. Layers that are added, multiplied or split
into attention heads couple channels of several layers. Such a bundle is a *unit*; the units of a layer form a
:class:`Group`. Groups are plain data: masking, removal and costs are all computed from them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from lightning_compress.training.interplay.followers import follower_of

__all__ = ["Group", "RemovedEntries", "Role", "Slice", "hollow_layers", "mask_", "removed_entries", "with_followers"]

Role: TypeAlias = Literal["out", "in", "scale", "other"]
"""Relation of a tensor to a channel: the weight that produces it, one that consumes it, its scale, or another."""

RemovedEntries: TypeAlias = dict[str, dict[int, Tensor]]
"""Tensor name -> dimension -> removed positions along it, ascending and without repetition."""


@dataclass(frozen=True, eq=False)
class Slice:
    """The entries of one tensor that belong to the units of a group.

    Attributes:
        name: the tensor's name in the state dict.
        dim: the dimension along which the units lie.
        index: ``(units, k)``: the positions along ``dim`` that belong to each unit.
        role: relation of the tensor to a channel.
    """

    name: str
    dim: int
    index: Tensor
    role: Role


@dataclass(frozen=True, eq=False)
class Group:
    """Units that can be removed one by one, and all tensor entries that belong to them.

    Attributes:
        name: name of the layer that produces the channels, the first of them if there are several.
        slices: entries of parameters and buffers.
        width: channels of that layer in one unit: 1, or the size of an attention head.
        counters: ``(module name, attribute, amount)``: integer attributes that shrink by ``amount`` with each unit,
            such as the number of heads.
        branch: layers of the residual branch that have no effect once all units are removed -> whether the bias of such
            a layer stays. Empty if at least one unit must stay.
    """

    name: str
    slices: tuple[Slice, ...]
    width: int = 1
    counters: tuple[tuple[str, str, int], ...] = field(default=())
    branch: Mapping[str, bool] = field(default_factory=dict)

    def state(self) -> dict[str, Any]:
        """The same in tensors and primitives, for a checkpoint."""
        return {**vars(self), "slices": [dict(vars(part)) for part in self.slices]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Group:
        """The group that :meth:`state` described."""
        return cls(**{**state, "slices": tuple(Slice(**part) for part in state["slices"])})

    def of_follower(self, copy: str, network: str) -> Group:
        """The entries of the network ``copy``, which follows ``network``; none if the group has none of ``network``."""
        found = partial(follower_of, copy=copy, network=network)
        return Group(
            f"{copy}: {self.name}",
            tuple(replace(part, name=name) for part in self.slices if (name := found(part.name)) is not None),
            self.width,
            tuple((name, *rest) for owner, *rest in self.counters if (name := found(owner)) is not None),  # type: ignore[misc]
            {name: biased for layer, biased in self.branch.items() if (name := found(layer)) is not None},
        )

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.slices[0].index)

    def is_produced_by(self, names: Collection[str]) -> bool:
        """Whether one of ``names`` is a parameter of the layers that produce the channels."""
        return any(part.role != "in" and part.name in names for part in self.slices)

    def branch_parameters(self, names: Collection[str]) -> set[str]:
        """Those of ``names`` that are removed together with the residual branch."""
        kept = {f"{layer}.bias" for layer, biased in self.branch.items() if biased}
        return {name for name in names if name.rpartition(".")[0] in self.branch and name not in kept}

    def parameters(self, names: Collection[str]) -> set[str]:
        """Those of ``names`` that become smaller, or are removed, with the units."""
        return {part.name for part in self.slices if part.name in names} | self.branch_parameters(names)

    def removes_branch(self, removed: Mapping[str, Tensor]) -> bool:
        """Whether the whole residual branch is removed; ``removed`` as in :func:`removed_entries`."""
        return bool(self.branch) and self.name in removed and bool(removed[self.name].all())


def removed_entries(groups: Sequence[Group], removed: Mapping[str, Tensor]) -> RemovedEntries:
    """Translate removed units into removed entries of tensors.

    Args:
        groups: the groups.
        removed: group name -> ``(units,)`` bool, True where a unit is removed.

    >>> group = Group("fc1", (Slice("fc1.weight", 0, torch.tensor([[0], [1], [2]]), "out"),))
    >>> removed_entries([group], {"fc1": torch.tensor([True, False, True])})
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


def with_followers(
    groups: Sequence[Group], removed: Mapping[str, Tensor], followed: Mapping[str, str]
) -> tuple[list[Group], dict[str, Tensor]]:
    """Let networks inside the model lose the channels that the networks lose which they follow.

    Args:
        groups: the groups.
        removed: as in :func:`removed_entries`.
        followed: copy -> network, names of submodules.

    Returns:
        the groups and those of the copies, and the removed units of all of them.
    """
    copied = [
        (follower, removed[group.name])
        for copy, network in followed.items()
        for group in groups
        if group.name in removed and (follower := group.of_follower(copy, network)).slices
    ]
    return (
        [*groups, *(group for group, _ in copied)],
        {**removed, **{group.name: units for group, units in copied}},
    )


def hollow_layers(groups: Sequence[Group], removed: Mapping[str, Tensor]) -> dict[str, bool]:
    """Layers of removed residual branches -> whether the bias stays; arguments as for :func:`removed_entries`."""
    return {name: biased for group in groups if group.removes_branch(removed) for name, biased in group.branch.items()}


def mask_(tensors: Mapping[str, Tensor], entries: RemovedEntries) -> None:
    """Set the removed entries of each tensor to zero, in place."""
    for name, tensor in tensors.items():
        for dim, positions in entries.get(name, {}).items():
            tensor.index_fill_(dim, positions.to(tensor.device), 0)
