"""The groups of a model that can be removed without an error, each of them tried out, and the prices of its weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.channels.budget.costs import mac_prices
from lightning_compress.channels.dependencies.residual_branches import add_residual_branches
from lightning_compress.channels.dependencies.walk import find_groups
from lightning_compress.channels.groups import Group, mask_, removed_entries
from lightning_compress.channels.layers import has_channels
from lightning_compress.channels.removal.shapes import dense_copy
from lightning_compress.channels.removal.surgery import narrow_module_
from lightning_compress.example_inputs import check_runs, float_outputs
from lightning_compress.targets import select

__all__ = ["Removable", "find_removable"]

_TOLERANCE = 1e-4  # of the largest output; under random weights the error of a wrong group is far larger


@dataclass(frozen=True)
class Removable:
    """The removable groups of a model.

    Attributes:
        groups: groups whose removal was tried and found exact.
        left_alone: layer name -> reason why its channels stay.
        prices: weight name -> MACs of each of its elements per example, in the dense model if channels were removed;
            see :func:`~.costs.mac_prices`.
    """

    groups: tuple[Group, ...]
    left_alone: Mapping[str, str]
    prices: Mapping[str, float]

    def state(self) -> dict[str, Any]:
        """The same in tensors and primitives, for a checkpoint."""
        return {**vars(self), "groups": [group.state() for group in self.groups]}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Removable:
        """The removable groups that :meth:`state` described."""
        return cls(**{**state, "groups": tuple(map(Group.from_state, state["groups"]))})

    def chosen(self, module: nn.Module, include: Sequence[str], exclude: Sequence[str]) -> Removable:
        """The same, without the groups whose channels patterns leave out, which are those of :func:`~.targets.select`.

        Layers of one's own that were followed need no pattern other than ``"*"``.
        """
        followed = [part.name for group in self.groups for part in group.slices if part.role == "out"]
        skipped = select(module, (*include, *(followed if "*" in include else ())), exclude).skipped
        left_alone = dict(self.left_alone)
        for group in self.groups:
            reasons = {skipped.get(part.name) for part in group.slices if part.role == "out"}
            if reasons & {"excluded", "not included"}:
                left_alone[group.name] = "excluded" if "excluded" in reasons else "not included"
        groups = tuple(group for group in self.groups if group.name not in left_alone)
        return replace(self, groups=groups, left_alone=left_alone)


def find_removable(module: nn.Module, example: Any, remove_blocks: bool = False) -> Removable:
    """Find the groups of a model and try each of them out on a copy with random weights.

    A group is kept if the copy computes the same with its units removed as with their entries set to zero. The model
    itself is not touched.

    Args:
        module: the model.
        example: input of ``forward``, on the device of the model; see :func:`~lightning_compress.example_inputs.call`.
        remove_blocks: also find residual branches that can be removed whole.

    Raises:
        ImportError: torch-pruning is not installed.
        ValueError: the model cannot be run on the example, returns no tensors to trace, or the weight of a layer is no
            parameter.
    """
    _check_weights(module)  # before the copy, which torch refuses for weights that are no parameters
    model = _random_copy(module)
    check_runs(model, example)
    prices = mac_prices(dense_copy(model), example)
    run = partial(_differentiable_outputs, example=example)
    if not run(copy.deepcopy(model)):  # on a copy: a model that stores its outputs could not be copied afterwards
        raise ValueError(
            f"need tensors that depend on the weights in what {type(module).__name__}.forward returns, got none: "
            "return a tensor, or several in a tuple, a mapping or a dataclass"
        )
    groups, left_alone = find_groups(copy.deepcopy(model), run)
    good, failed = _try_groups(model, example, groups)
    if remove_blocks:
        good = _try_branches(model, example, add_residual_branches(model, run, good))
    return Removable(tuple(good), left_alone | failed, prices)


def _check_weights(model: nn.Module) -> None:
    for name, layer in model.named_modules():
        if has_channels(layer) and not isinstance(layer.weight, nn.Parameter):
            raise ValueError(
                f"need linear layers and convolutions whose weight is a parameter, got {name!r}, which computes its "
                "weight, as weight_norm, spectral_norm and masks of torch.nn.utils.prune do: call "
                "parametrize.remove_parametrizations, remove_weight_norm, remove_spectral_norm or prune.remove first"
            )


def _differentiable_outputs(module: nn.Module, example: Any) -> list[Tensor]:
    return [out for out in float_outputs(module, example) if out.requires_grad]


@torch.no_grad()
def _random_copy(module: nn.Module) -> nn.Module:
    """A copy in evaluation mode with random weights, so that no path is hidden by weights near zero."""
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


def _try_groups(model: nn.Module, example: Any, groups: Sequence[Group]) -> tuple[list[Group], dict[str, str]]:
    """The groups whose joint removal is exact, and for each other group its name -> the error."""
    if not groups or not _error_of_removal(model, example, groups):
        return list(groups), {}
    errors = {group.name: _error_of_removal(model, example, [group]) for group in groups}
    good = [group for group in groups if not errors[group.name]]
    joint = _error_of_removal(model, example, good) if good else ""
    if joint:
        return [], {group.name: errors[group.name] or joint for group in groups}
    return good, {name: error for name, error in errors.items() if error}


def _try_branches(model: nn.Module, example: Any, groups: Sequence[Group]) -> list[Group]:
    """The groups, without those residual branches whose removal is not exact."""
    whole = [group for group in groups if group.branch]
    wrong: set[str] = set()
    if _error_of_removal(model, example, whole, fraction=1.0):
        wrong = {group.name for group in whole if _error_of_removal(model, example, [group], fraction=1.0)}
        wrong = wrong or {group.name for group in whole}
    return [replace(group, branch={}) if group.name in wrong else group for group in groups]


@torch.no_grad()
def _error_of_removal(model: nn.Module, example: Any, groups: Sequence[Group], fraction: float = 0.5) -> str:
    """The difference between removing a fraction of the units and masking them, in words; empty if there is none."""
    trial = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(0)
    removed = {}
    for group in groups:
        removed[group.name] = torch.zeros(group.units, dtype=torch.bool)
        removed[group.name][torch.randperm(group.units, generator=generator)[: int(group.units * fraction)]] = True
    mask_(trial.state_dict(), removed_entries(groups, removed))
    masked = float_outputs(trial, example)
    try:
        narrow_module_(trial, groups, removed)
        narrowed = float_outputs(trial, example)
    except Exception as error:
        return f"the model does not run without them: {type(error).__name__}: {str(error).splitlines()[0]}"
    if [out.shape for out in narrowed] != [out.shape for out in masked]:
        return "the model's output changes its shape without them"
    for a, b in zip(masked, narrowed, strict=True):
        off = float((a - b).abs().max() / a.abs().max().clamp_min(1e-30)) if a.numel() else 0.0
        if not off <= _TOLERANCE:
            return f"the model's output without them differs from that with zeros in their place by {off:.1e}"
    stopped = _error_in_training(trial, example)
    if stopped and not _error_in_training(model, example):
        return f"the model does not train without them: {stopped}"
    return ""


def _error_in_training(model: nn.Module, example: Any) -> str:
    """The error of a forward pass in training mode, where auxiliary heads run, in words; empty if there is none."""
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.device.type == "cuda"})
    try:
        with torch.random.fork_rng(devices):
            float_outputs(copy.deepcopy(model).train(), example)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""
