"""Branches: groups all of whose units may go, because another path leads around them.

Without inner channels a residual branch is a constant that is added to its shortcut. Its layers are made hollow: those
that produce the channels and those that consume them, what normalises them, and what only led there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.channels.cutting.hollow import NORMALISING, Hollow, computes, hollow_, is_leaf
from lightning_compress.channels.dependencies.graph import has_channels
from lightning_compress.channels.groups import Group

__all__ = ["with_branches"]


def with_branches(model: nn.Module, run: Callable[[nn.Module], list[Tensor]], groups: Sequence[Group]) -> list[Group]:
    """Find out which groups can go as a whole, all of them together, and note their branches.

    A group can if what consumes it reads nothing else, and if then no layer that reads the model's input is left
    without an effect on the output, nor any layer without something of the input to read. Branches do not overlap; what
    is part of a larger one goes with that.

    Args:
        model: the model, in evaluation mode, with random weights.
        run: one forward pass; gives the output tensors that gradients flow to.
        groups: its groups.

    Returns:
        the groups in their order, with :attr:`~.groups.Group.branch` where they can.
    """
    whole = _look(copy.deepcopy(model), run)
    taken: dict[str, bool] = {}
    found: dict[str, dict[str, bool]] = {}
    sizes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    layers = {group.name: _layers(model, group, sizes) for group in groups}
    for name, branch in sorted(layers.items(), key=lambda item: -len(item[1])):
        if branch and not branch.keys() & taken.keys():
            trial = copy.deepcopy(model)
            hollow = taken | branch
            hollow_(trial, hollow)
            left = _try(trial, run)
            if left is None or not _whole_without(whole, left, hollow):
                continue
            unread = whole.heard - left.heard - hollow.keys()
            if all(is_leaf(model.get_submodule(layer)) for layer in unread):
                found[name] = dict.fromkeys(sorted(unread), False)
                found[name] |= {layer: biased and layer in left.heard for layer, biased in branch.items()}
                taken |= found[name]
    return [replace(group, branch=found.get(group.name, {})) for group in groups]


@dataclass(frozen=True)
class _Look:
    """Names of layers.

    Attributes:
        roots: what reads the input of the model, and nothing that another layer computes.
        heard: what has an effect on the output: a gradient arrives.
        reached: linear layers and convolutions that read what the roots compute.
    """

    roots: frozenset[str]
    heard: frozenset[str]
    reached: frozenset[str]


def _whole_without(before: _Look, after: _Look, hollow: Collection[str]) -> bool:
    """Whether all of the input still has an effect, and nothing goes on computing a constant."""
    constant = before.reached - after.reached - set(hollow)
    return before.roots <= after.heard and not constant & after.heard


def _look(model: nn.Module, run: Callable[[nn.Module], list[Tensor]]) -> _Look:
    layers = {name: layer for name, layer in model.named_modules() if list(layer.parameters(recurse=False))}
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        fed, outputs = _fed(model, run, layers)
        torch.autograd.backward([output.sum() for output in outputs])
        heard = {name for name, layer in layers.items() if any(p.grad is not None for p in layer.parameters(False))}
        roots = {name for name in heard - fed if not isinstance(layers[name], Hollow)}
        model.zero_grad()
        own = {id(parameter) for name in roots for parameter in layers[name].parameters(False)}
        for parameter in learning:
            parameter.requires_grad_(id(parameter) in own)
        reached, _ = _fed(model, run, layers)
        for parameter in learning:
            parameter.requires_grad_(True)
    return _Look(frozenset(roots), frozenset(heard), frozenset(n for n in reached if has_channels(layers[n])))


def _try(model: nn.Module, run: Callable[[nn.Module], list[Tensor]]) -> _Look | None:
    try:
        return _look(model, run)
    except Exception:  # the model's own code needs what is gone
        return None


def _fed(
    model: nn.Module, run: Callable[[nn.Module], list[Tensor]], layers: Mapping[str, nn.Module]
) -> tuple[set[str], list[Tensor]]:
    """Names of the layers whose input depends on a parameter that requires a gradient, and the outputs of the pass."""
    fed: set[str] = set()

    def note(name: str) -> Callable[..., None]:
        def hook(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if any(isinstance(x, Tensor) and x.requires_grad for x in (*args, *kwargs.values())):
                fed.add(name)

        return hook

    handles = [layer.register_forward_pre_hook(note(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        return fed, run(model)
    finally:
        for handle in handles:
            handle.remove()


def _layers(model: nn.Module, group: Group, sizes: Mapping[str, torch.Size]) -> dict[str, bool]:
    """The layers of a group that would be hollow without it -> whether the bias stays; none if one could not be."""
    roles: dict[str, set[str]] = {}
    for part in group.slices:
        roles.setdefault(part.name.rpartition(".")[0], set()).add(part.role)
        if torch.unique(part.index).numel() < sizes[part.name][part.dim]:
            return {}  # other channels go the same way
    layers = {name: model.get_submodule(name) for name in roles}
    mine = {id(p) for layer in layers.values() for p in layer.parameters(recurse=False)}
    shared = any(
        id(p) in mine
        for layer in model.modules()
        if layer not in layers.values()
        for p in layer.parameters(recurse=False)
    )
    possible = all(computes(layer) or isinstance(layer, NORMALISING) for layer in layers.values())
    if group.counters or shared or not possible or not any("in" in found for found in roles.values()):
        return {}
    return {
        name: "in" in found and "out" not in found and getattr(layers[name], "bias", None) is not None
        for name, found in roles.items()
    }
