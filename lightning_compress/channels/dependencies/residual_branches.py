"""Residual branches: groups all of whose units may be removed, because another path leads around them.

Without its inner channels a residual branch is a constant that is added to the shortcut. Its layers become hollow: the
layers that produce the channels and those that consume them, the normalizations between them, and the layers that only
lead to them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from lightning_compress.channels.dependencies.reachability import LayerGraph, build_layer_graph
from lightning_compress.channels.groups import Group
from lightning_compress.channels.layers import has_channels
from lightning_compress.channels.removal.hollow import NORMALIZATIONS, Hollow, is_leaf, returns_bias

__all__ = ["add_residual_branches"]


def add_residual_branches(
    model: nn.Module, run: Callable[[nn.Module], list[Tensor]], groups: Sequence[Group]
) -> list[Group]:
    """Find the groups that can be removed whole, all of them together, and add their residual branches.

    A group can be removed whole if its consumers have no other input, and if afterwards every layer that reads the
    input of the model still has an effect on the output, and no layer with an effect computes a constant. Residual
    branches do not overlap; a branch inside a larger one is removed with the larger one.

    Args:
        model: the model, in evaluation mode, with random weights.
        run: one forward pass; returns the output tensors that gradients flow to.
        groups: its groups.

    Returns:
        the groups in their order, with :attr:`~.groups.Group.branch` if they have one.
    """
    traced = copy.deepcopy(model)
    graph = build_layer_graph(traced, run)
    sizes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    candidates = {group.name: _candidate(model, group, sizes) for group in groups}
    found: dict[str, dict[str, bool]] = {}
    taken: dict[str, bool] = {}  # the layers of all branches found so far
    for name, layers in sorted(candidates.items(), key=lambda item: -len(item[1])):
        if layers and not layers.keys() & taken.keys():
            branch = _branch(model, graph, layers, taken)
            if branch:
                found[name] = branch
                taken |= branch
    return [replace(group, branch=found.get(group.name, {})) for group in groups]


def _branch(
    model: nn.Module, graph: LayerGraph, layers: Mapping[str, bool], taken: Mapping[str, bool]
) -> dict[str, bool]:
    """The branch that becomes hollow with some layers -> whether the bias stays; empty if it cannot be removed."""
    hollow = {**taken, **layers}
    constant = {name for name in hollow if returns_bias(model.get_submodule(name))}
    effective = graph.ancestors()
    left = {name for name in graph.ancestors(constant) if hollow.get(name, True)}  # others have no parameter left
    roots = {n for n in effective - graph.fed if not isinstance(model.get_submodule(n), Hollow)}
    lost = graph.descendants(roots) - graph.descendants(roots, constant) - hollow.keys()
    if not roots <= left or any(has_channels(model.get_submodule(name)) for name in lost & left):
        return {}
    unread = effective - left - hollow.keys()
    if not all(is_leaf(model.get_submodule(name)) for name in unread):
        return {}
    return dict.fromkeys(sorted(unread), False) | {name: biased and name in left for name, biased in layers.items()}


def _candidate(model: nn.Module, group: Group, sizes: Mapping[str, torch.Size]) -> dict[str, bool]:
    """The layers of a group that become hollow without it -> whether the bias stays; empty if one of them cannot."""
    roles: dict[str, set[str]] = {}
    for part in group.slices:
        roles.setdefault(part.name.rpartition(".")[0], set()).add(part.role)
        if torch.unique(part.index).numel() < sizes[part.name][part.dim]:
            return {}  # the tensor has entries of other channels
    layers = {name: model.get_submodule(name) for name in roles}
    own = {id(p) for layer in layers.values() for p in layer.parameters(recurse=False)}
    tied = any(
        id(p) in own
        for layer in model.modules()
        if layer not in layers.values()
        for p in layer.parameters(recurse=False)
    )
    possible = all(returns_bias(layer) or isinstance(layer, NORMALIZATIONS) for layer in layers.values())
    if group.counters or tied or not possible or not any("in" in found for found in roles.values()):
        return {}
    return {
        name: "in" in found and "out" not in found and getattr(layers[name], "bias", None) is not None
        for name, found in roles.items()
    }
