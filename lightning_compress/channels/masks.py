"""Masks: the units that are held at zero, and the parameter entries that belong to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from lightning_compress.adapters import additive_paths
from lightning_compress.channels.groups import Group, RemovedEntries, mask_, removed_entries
from lightning_compress.processes import gather, local_positions
from lightning_compress.targets import Target

__all__ = ["Masks", "masked_targets", "masks_of", "whole_parts"]


@dataclass(frozen=True, eq=False)
class Masks:
    """Masked units in three forms.

    Attributes:
        units: group name -> ``(units,)`` bool, True where a unit is masked.
        entries: the same as positions in whole parameters.
        local_entries: the same as positions in the shards of this process, on their device.
        branch_parameters: names of the parameters of residual branches that are masked whole.
    """

    units: Mapping[str, Tensor] = field(default_factory=dict)
    entries: RemovedEntries = field(default_factory=dict)
    local_entries: RemovedEntries = field(default_factory=dict)
    branch_parameters: frozenset[str] = frozenset()

    def apply_(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the masked entries of parameters, or of tensors of their shapes, to zero."""
        mask_(tensors, self.local_entries)

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        """Check that the masked entries of the weights are zero.

        Raises:
            RuntimeError: some are not.
        """
        for name, weight in weights.items():
            for dim, positions in self.local_entries.get(name, {}).items():
                masked = weight.index_select(dim, positions)
                if alive := int(masked.count_nonzero()):
                    raise RuntimeError(
                        f"need the {masked.numel()} entries of masked channels of {name!r} to be zero, got {alive} "
                        "others"
                    )


def masked_targets(module: nn.Module, groups: Sequence[Group]) -> tuple[Target, ...]:
    """The parameters of ``module`` that have entries of the groups."""
    parameters = dict(module.named_parameters())
    names = dict.fromkeys(part.name for group in groups for part in group.slices if part.name in parameters)
    holders = {name: module.get_submodule(name.rpartition(".")[0]) for name in names}
    paths = {path.weight_name: path for path in additive_paths(module)}
    return tuple(Target(n, (n,), holders[n], parameters[n], path=paths.get(n)) for n in names)


def whole_parts(group: Group, tensors: Mapping[str, Tensor], targets: Mapping[str, Target]) -> dict[str, Tensor]:
    """The tensors of targets that have entries of a group, by name; gathered where they are sharded."""
    names = {part.name for part in group.slices}
    return {name: gather(tensor, targets[name].parameter) for name, tensor in tensors.items() if name in names}


def masks_of(
    groups: Sequence[Group], units: Mapping[str, Tensor], parameters: Mapping[str, Tensor], names: Collection[str]
) -> Masks:
    """The masks of some units.

    Args:
        groups: the groups.
        units: group name -> ``(units,)`` bool, True where a unit is masked.
        parameters: name -> parameter, of those that are masked; may be sharded.
        names: names of all parameters of the model.
    """
    entries = {name: dims for name, dims in removed_entries(groups, units).items() if name in parameters}
    local_entries = {
        name: {dim: local_positions(positions, parameters[name], dim) for dim, positions in dims.items()}
        for name, dims in entries.items()
    }
    whole = {name for group in groups if group.removes_branch(units) for name in group.branch_parameters(names)}
    return Masks(dict(units), entries, local_entries, frozenset(whole))
