"""Plans: the groups of a model that can be removed exactly, each of them tried out, and what its weights cost."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from lightning_compress.channels.cutting.shapes import dense_copy
from lightning_compress.channels.cutting.surgery import cut_
from lightning_compress.channels.dependencies.branches import with_branches
from lightning_compress.channels.dependencies.graph import find_groups, has_channels
from lightning_compress.channels.groups import Group, dropped, mask_
from lightning_compress.example_inputs import float_outputs
from lightning_compress.targets import is_linear

__all__ = ["Plan", "make_plan"]

_TOLERANCE = 1e-4  # of the largest output; a group that is wrong is off by far more under random weights


@dataclass(frozen=True)
class Plan:
    """What can be removed from a model.

    Attributes:
        groups: groups whose removal was tried and found exact.
        left_alone: layer name -> why its channels stay.
        prices: weight name -> MACs of each of its elements per example: how many positions it is applied at. Of the
            dense model, if channels have been cut.
    """

    groups: tuple[Group, ...]
    left_alone: Mapping[str, str]
    prices: Mapping[str, float]


def make_plan(module: nn.Module, example: Any, branches: bool = False) -> Plan:
    """Find the groups of a model and try each of them out on a copy with random weights.

    A group is kept if the copy computes the same with its units removed as with their entries set to zero. The model
    itself is not touched.

    Args:
        module: the model.
        example: input of ``forward``, as :func:`~lightning_compress.example_inputs.call` takes it, on the device of
            the model.
        branches: whether to look for groups that can go as a whole.

    Raises:
        ImportError: torch-pruning is not installed.
        ValueError: the model cannot be run on the example, gives no tensors to trace, or the weight of a layer
            is no parameter.
    """
    model = _random_copy(module)
    _check_weights(model)
    try:
        with torch.no_grad():
            prices = _prices(dense_copy(model), example)
    except Exception as error:
        raise ValueError(
            f"need an example input that {type(module).__name__}.forward takes, got {_described(example)}, which "
            f"raises {type(error).__name__}: {error}; set module.example_input_array or give example_input"
        ) from error
    run = partial(_differentiable, example=example)
    if not run(copy.deepcopy(model)):  # a model may keep what it computes, and could not be copied then
        raise ValueError(
            f"need tensors that depend on the weights in what {type(module).__name__}.forward returns, got none: "
            "return a tensor, or several in a tuple or mapping; a dataclass by torch.export.register_dataclass"
        )
    groups, left_alone = find_groups(copy.deepcopy(model), run)
    good, failed = _tried(model, example, groups)
    if branches:
        good = _tried_whole(model, example, with_branches(model, run, good))
    return Plan(tuple(good), left_alone | failed, prices)


def _check_weights(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        if has_channels(layer) and not isinstance(layer.weight, nn.Parameter):
            raise ValueError(
                f"need linear layers and convolutions whose weight is a parameter, got {name!r}, which computes it of "
                "others, as weight_norm does: call torch.nn.utils.parametrize.remove_parametrizations first"
            )


def _differentiable(module: nn.Module, example: Any) -> list[Tensor]:
    return [out for out in float_outputs(module, example) if out.requires_grad]


@torch.no_grad()
def _random_copy(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode whose every path counts, whatever the weights of the model are."""
    model = copy.deepcopy(module).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not tensor.is_floating_point():
            continue
        if isinstance(tensor, nn.Parameter):
            tensor.requires_grad_(True)
        if tensor.ndim > 1 and isinstance(tensor, nn.Parameter):
            value = torch.randn(tensor.shape, generator=generator) / tensor[0].numel() ** 0.5
        elif isinstance(tensor, nn.Parameter) or name.endswith(("running_mean", "running_var")):
            value = torch.rand(tensor.shape, generator=generator) + 0.5
        else:
            continue
        tensor.copy_(value)
    return model


def _prices(model: nn.Module, example: Any) -> dict[str, float]:
    prices: dict[str, float] = {}
    batch = next((len(leaf) for leaf in tree_leaves(example) if isinstance(leaf, Tensor) and leaf.ndim), 1)
    names = {parameter: name for name, parameter in model.named_parameters()}

    def note(layer: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if is_linear(layer):
            positions = output.numel() / output.shape[-1]
        elif layer.transposed:
            positions = inputs[0].numel() / layer.in_channels
        else:
            positions = output.numel() / layer.out_channels
        name = names[layer.weight]
        prices[name] = prices.get(name, 0.0) + positions / batch

    handles = [layer.register_forward_hook(note) for layer in model.modules() if has_channels(layer)]
    try:
        float_outputs(model, example)
    finally:
        for handle in handles:
            handle.remove()
    return prices


def _tried(model: nn.Module, example: Any, groups: Sequence[Group]) -> tuple[list[Group], dict[str, str]]:
    """The groups whose removal is exact, together, and for the others what went wrong."""
    if not groups or not _difference(model, example, groups):
        return list(groups), {}
    failed = {group.name: _difference(model, example, [group]) for group in groups}
    good = [group for group in groups if not failed[group.name]]
    reason = _difference(model, example, good) if good else ""
    if reason:
        return [], {group.name: failed[group.name] or reason for group in groups}
    return good, {name: reason for name, reason in failed.items() if reason}


def _tried_whole(model: nn.Module, example: Any, groups: Sequence[Group]) -> list[Group]:
    """The groups, with branches where removing these, together, is exact."""
    whole = {group.name: group for group in groups if group.branch}
    if _difference(model, example, list(whole.values()), share=1.0):
        wrong = {name for name, group in whole.items() if _difference(model, example, [group], share=1.0)}
        wrong = wrong or set(whole)
        return [replace(group, branch={}) if group.name in wrong else group for group in groups]
    return list(groups)


@torch.no_grad()
def _difference(model: nn.Module, example: Any, groups: Sequence[Group], share: float = 0.5) -> str:
    """How removing a share of the units differs from masking them; empty if it does not."""
    trial = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    removed = {}
    for group in groups:
        removed[group.name] = torch.zeros(group.units, dtype=torch.bool)
        removed[group.name][torch.randperm(group.units, generator=generator)[: int(group.units * share)]] = True
    gone = dropped(groups, removed)
    mask_(trial.state_dict(), gone)
    masked = float_outputs(trial, example)
    try:
        cut_(trial, groups, removed)
        cut = float_outputs(trial, example)
    except Exception as error:
        return f"the model does not run without them: {type(error).__name__}: {str(error).splitlines()[0]}"
    if [out.shape for out in cut] != [out.shape for out in masked]:
        return "the model's output changes its shape without them"
    for a, b in zip(masked, cut, strict=True):
        off = float((a - b).abs().max() / a.abs().max().clamp_min(1e-30)) if a.numel() else 0.0
        if not off <= _TOLERANCE:
            return f"the model's output without them differs from that with zeros in their place by {off:.1e}"
    stopped = _stopped_in_training(trial, example)
    if stopped and not _stopped_in_training(model, example):
        return f"the model does not train without them: {stopped}"
    return ""


def _stopped_in_training(model: nn.Module, example: Any) -> str:
    """What stops a forward pass in training mode, as in an auxiliary head; empty if nothing does."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices):
            float_outputs(copy.deepcopy(model).train(), example)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


def _described(example: Any) -> str:
    return ", ".join(str(tuple(leaf.shape)) for leaf in tree_leaves(example) if isinstance(leaf, Tensor)) or "no tensor"
