"""Surgery: removal of channels from tensors, gradients and optimizer state, without rounding.

Removed entries are given by position, and every tensor that has an entry per weight is sliced at the same positions. A
narrowed model whose removed entries were zero computes the same as before, and continues training like the masked one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_compress.channels.groups import Group, hollow_layers, removed_entries
from lightning_compress.channels.removal.hollow import Hollow, hollow_
from lightning_compress.targets import is_layer, is_transposed
from lightning_compress.training.copies import detached_copy

__all__ = ["narrow", "narrow_module_", "narrow_optimizer_", "narrowed_copy", "remove_units_", "replace_", "resize_"]

_SIZES = {"out_features": 0, "out_channels": 0, "in_features": 1, "in_channels": 1}  # name -> dimension of the weight


def narrow(tensor: Tensor, entries: Mapping[int, Tensor]) -> Tensor:
    """Copy ``tensor`` without the given positions.

    Args:
        tensor: any tensor; a dimension of size 1 counts as broadcast and is kept.
        entries: dimension -> positions that are removed.

    >>> narrow(torch.tensor([[1, 2, 3], [4, 5, 6]]), {1: torch.tensor([1])})
    tensor([[1, 3],
            [4, 6]])
    """
    for dim, positions in entries.items():
        if tensor.shape[dim] > 1:
            keep = torch.ones(tensor.shape[dim], dtype=torch.bool)
            keep[positions.cpu()] = False
            tensor = tensor.index_select(dim, keep.nonzero().flatten().to(tensor.device))
    return tensor.clone()


@torch.no_grad()
def narrow_module_(
    module: nn.Module, groups: Sequence[Group], removed: Mapping[str, Tensor]
) -> dict[Tensor, nn.Parameter | None]:
    """Replace the parameters and buffers of ``module`` by narrower ones, with their gradients, under every name.

    Args:
        module: the model, changed in place, with the sizes and numbers of heads that its layers keep as attributes.
        groups: its groups.
        removed: group name -> ``(units,)`` bool, True where a unit is removed. All units may be True if the group has a
            residual branch.

    Returns:
        old parameter -> new parameter, or None if it was removed with a residual branch.
    """
    before = list(module.parameters())
    hollow_(module, hollow_layers(groups, removed))
    narrowed: dict[Tensor, Tensor] = {}
    partly = [group for group in groups if not group.removes_branch(removed)]
    for name, dims in removed_entries(partly, removed).items():
        layer, key = _owner(module, name)
        if isinstance(layer, Hollow) and (key != "bias" or layer.bias is None):
            if key == "weight":
                layer.narrow_(dims)
            continue
        old: Tensor = getattr(layer, key)
        narrowed[old] = new = narrow(old.detach(), dims)
        if isinstance(old, nn.Parameter):
            narrowed[old] = new = nn.Parameter(new, requires_grad=old.requires_grad)
            new.grad = None if old.grad is None else narrow(old.grad, dims)
    replace_(module, narrowed)
    _lower_counters_(module, groups, removed)
    left = set(module.parameters())
    after = {old: narrowed.get(old, old) for old in before}
    return {old: new if new in left else None for old, new in after.items() if old not in left}  # type: ignore[misc]


def narrowed_copy(module: nn.Module, groups: Sequence[Group], removed: Mapping[str, Tensor]) -> nn.Module:
    """A copy of a module, which is in no Trainer, without some units; arguments are those of :func:`narrow_module_`."""
    narrowed = detached_copy(module)
    narrow_module_(narrowed, groups, removed)
    return narrowed


def replace_(module: nn.Module, tensors: Mapping[Tensor, Tensor]) -> None:
    """Put new parameters and buffers in place of old ones, under every name, and set the sizes of their layers."""
    for layer in module.modules():
        for slots in (layer._parameters, layer._buffers):
            touched = {key: tensors[old] for key, old in slots.items() if old is not None and old in tensors}
            if "weight" in touched:
                _resize_own_(layer, slots["weight"], touched["weight"])
            slots.update(touched)  # type: ignore[arg-type]
            if touched:
                resize_(layer)


def _lower_counters_(module: nn.Module, groups: Iterable[Group], removed: Mapping[str, Tensor]) -> None:
    """Lower the counters (numbers of attention heads) by the removed units."""
    for group in groups:
        units = int(removed[group.name].sum()) if group.name in removed else 0
        for owner, attribute, amount in group.counters:
            layer = module.get_submodule(owner)
            setattr(layer, attribute, getattr(layer, attribute) - units * amount)


def narrow_optimizer_(
    optimizer: Optimizer,
    replaced: Mapping[Tensor, nn.Parameter | None],
    entries: Mapping[Tensor, Mapping[int, Tensor]],
) -> None:
    """Make an optimizer continue with the new parameters: the same groups in the same order, its state sliced.

    Args:
        optimizer: changed in place.
        replaced: old parameter -> new parameter, or None if it is removed.
        entries: old parameter -> dimension -> removed positions.

    Raises:
        ValueError: the optimizer keeps state without an entry per weight, which cannot be sliced.
    """
    for group in optimizer.param_groups:
        now = [replaced.get(parameter, parameter) for parameter in group["params"]]
        group["params"] = [parameter for parameter in now if parameter is not None]
    state = {
        new: {
            key: _narrow_state(optimizer, key, value, parameter, entries[parameter]) if parameter in replaced else value
            for key, value in values.items()
        }
        for parameter, values in optimizer.state.items()
        if (new := replaced.get(parameter, parameter)) is not None
    }
    optimizer.state.clear()
    optimizer.state.update(state)


def remove_units_(
    module: nn.Module,
    groups: Sequence[Group],
    removed: Mapping[str, Tensor],
    optimizers: Iterable[Optimizer] = (),
    copies: Iterable[nn.Module] = (),
) -> dict[str, nn.Parameter | None]:
    """Remove units from a model, from its optimizers and from copies of it.

    Args:
        module: changed in place, like the optimizers and the copies.
        groups: the groups.
        removed: group name -> ``(units,)`` bool, True where a unit is removed.
        optimizers: optimizers with parameters of ``module``.
        copies: modules of the same layers, such as averages of its weights.

    Returns:
        name -> new parameter, for each replaced one; None if it was removed with a residual branch.
    """
    entries = removed_entries(groups, removed)
    names: dict[Tensor, str] = {parameter: name for name, parameter in module.named_parameters()}
    for model in copies:
        narrow_module_(model, groups, removed)
    replaced = narrow_module_(module, groups, removed)
    for optimizer in optimizers:
        narrow_optimizer_(
            optimizer, replaced, {old: entries[names[old]] for old, new in replaced.items() if new is not None}
        )
    return {names[old]: new for old, new in replaced.items()}


def _narrow_state(optimizer: Optimizer, key: str, value: Any, parameter: Tensor, entries: Mapping[int, Tensor]) -> Any:
    if not isinstance(value, Tensor) or value.numel() == 1:
        return value
    # Factored state (Adafactor) has some of the dimensions of the weight, and 1 in place of the others.
    if value.ndim == parameter.ndim and all(a in (1, b) for a, b in zip(value.shape, parameter.shape, strict=True)):
        return narrow(value, entries)
    raise ValueError(
        f"need optimizer state of the shape of the weight to remove channels, got {key!r} of shape "
        f"{tuple(value.shape)} for a weight of shape {tuple(parameter.shape)} in {type(optimizer).__name__}: use SGD, "
        "Adam or AdamW, or remove=False"
    )


def resize_(layer: nn.Module) -> None:
    """Set the sizes that a layer keeps as attributes to those of its tensors."""
    if isinstance(layer, Hollow) and layer.bias is not None:
        layer.outputs = len(layer.bias)
    elif isinstance(layer, nn.modules.conv._ConvNd):
        _resize_convolution_(layer)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif is_transposed(layer):
        vars(layer).update(zip(("nx", "nf"), layer.get_parameter("weight").shape, strict=True))
    elif isinstance(layer, nn.Embedding):
        layer.embedding_dim = layer.weight.shape[1]
    elif isinstance(layer, nn.modules.batchnorm._NormBase):
        tensors = [layer.weight, layer.running_mean]
        layer.num_features = next((len(t) for t in tensors if t is not None), layer.num_features)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = layer.weight.numel()


def _resize_own_(layer: nn.Module, old: Any, new: Tensor) -> None:
    """Set the sizes that a linear layer of one's own keeps as attributes of the usual names."""
    if new.ndim == 2 and not is_layer(layer):
        for key, dim in _SIZES.items():
            if vars(layer).get(key) == old.shape[dim]:
                vars(layer)[key] = new.shape[dim]


def _resize_convolution_(layer: nn.modules.conv._ConvNd) -> None:
    first, second = layer.weight.shape[:2]
    if layer.groups == layer.out_channels == layer.in_channels:
        layer.in_channels = layer.out_channels = layer.groups = first
    elif layer.transposed:
        layer.in_channels, layer.out_channels = first, second * layer.groups
    else:
        layer.out_channels, layer.in_channels = first, second * layer.groups


def _owner(module: nn.Module, name: str) -> tuple[nn.Module, str]:
    path, _, key = name.rpartition(".")
    return module.get_submodule(path), key
