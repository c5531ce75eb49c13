"""The cut: tensors, gradients and optimizer state without the removed channels, exactly.

Removed entries are given by position, and everything that has an entry per weight is sliced by the same positions. A
cut model whose removed entries were zero computes what it computed before, and goes on training as the masked one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_compress.channels.groups import Dropped, Group

__all__ = ["count_down_", "cut_", "cut_optimizer_", "narrow", "resize_"]


def narrow(tensor: Tensor, gone: Mapping[int, Tensor]) -> Tensor:
    """Copy ``tensor`` without the given positions.

    Args:
        tensor: any tensor; a dimension of size 1 is taken as broadcast and kept.
        gone: dimension -> positions that are removed.

    >>> narrow(torch.tensor([[1, 2, 3], [4, 5, 6]]), {1: torch.tensor([1])})
    tensor([[1, 3],
            [4, 6]])
    """
    for dim, positions in gone.items():
        if tensor.shape[dim] > 1:
            keep = torch.ones(tensor.shape[dim], dtype=torch.bool)
            keep[positions.cpu()] = False
            tensor = tensor.index_select(dim, keep.nonzero().flatten().to(tensor.device))
    return tensor.clone()


@torch.no_grad()
def cut_(module: nn.Module, gone: Dropped) -> dict[Tensor, nn.Parameter]:
    """Replace the parameters and buffers of ``module`` by narrower ones, with their gradients, under every name.

    Args:
        module: the model, changed in place; sizes that its layers keep as numbers follow.
        gone: what is removed, by the names of the state dict.

    Returns:
        old parameter -> new parameter.
    """
    narrowed: dict[Tensor, Tensor] = {}
    for name, dims in gone.items():
        old = _tensor(module, name)
        narrowed[old] = new = narrow(old.detach(), dims)
        if isinstance(old, nn.Parameter):
            narrowed[old] = new = nn.Parameter(new, requires_grad=old.requires_grad)
            new.grad = None if old.grad is None else narrow(old.grad, dims)
    for layer in module.modules():
        for tensors in (layer._parameters, layer._buffers):
            touched = {key: narrowed[old] for key, old in tensors.items() if old is not None and old in narrowed}
            tensors.update(touched)  # type: ignore[arg-type]
            if touched:
                resize_(layer)
    return {old: new for old, new in narrowed.items() if isinstance(new, nn.Parameter)}


def count_down_(module: nn.Module, groups: Iterable[Group], removed: Mapping[str, Tensor]) -> None:
    """Lower the counters (numbers of attention heads) by the removed units."""
    for group in groups:
        units = int(removed[group.name].sum()) if group.name in removed else 0
        for owner, attribute, amount in group.counters:
            layer = module.get_submodule(owner)
            setattr(layer, attribute, getattr(layer, attribute) - units * amount)


def cut_optimizer_(
    optimizer: Optimizer, replaced: Mapping[Tensor, nn.Parameter], gone: Mapping[Tensor, Mapping[int, Tensor]]
) -> None:
    """Let an optimizer go on with the new parameters: same groups, same order, its state sliced.

    Args:
        optimizer: changed in place.
        replaced: old parameter -> new parameter.
        gone: old parameter -> dimension -> removed positions.

    Raises:
        ValueError: the optimizer keeps state that has no entry per weight, which cannot be sliced.
    """
    for group in optimizer.param_groups:
        group["params"] = [replaced.get(parameter, parameter) for parameter in group["params"]]
    state = {
        replaced.get(parameter, parameter): {
            key: _narrow_state(optimizer, key, value, parameter, gone[parameter]) if parameter in replaced else value
            for key, value in values.items()
        }
        for parameter, values in optimizer.state.items()
    }
    optimizer.state.clear()
    optimizer.state.update(state)


def _narrow_state(optimizer: Optimizer, key: str, value: Any, parameter: Tensor, gone: Mapping[int, Tensor]) -> Any:
    if not isinstance(value, Tensor) or value.numel() == 1:
        return value
    # Factored state (Adafactor) has some of the dimensions of the weight, and 1 in place of the others.
    if value.ndim == parameter.ndim and all(a in (1, b) for a, b in zip(value.shape, parameter.shape, strict=True)):
        return narrow(value, gone)
    raise ValueError(
        f"need optimizer state of the shape of the weight to cut channels, got {key!r} of shape {tuple(value.shape)} "
        f"for a weight of shape {tuple(parameter.shape)} in {type(optimizer).__name__}: use SGD, Adam or AdamW, or "
        "remove=False"
    )


def resize_(layer: nn.Module) -> None:
    """Set the sizes that a layer keeps as numbers to those of its tensors."""
    if isinstance(layer, nn.modules.conv._ConvNd):
        _resize_convolution_(layer)
    elif isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif isinstance(layer, nn.Embedding):
        layer.embedding_dim = layer.weight.shape[1]
    elif isinstance(layer, nn.modules.batchnorm._NormBase):
        tensors = [layer.weight, layer.running_mean]
        layer.num_features = next((len(t) for t in tensors if t is not None), layer.num_features)
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = layer.weight.numel()


def _resize_convolution_(layer: nn.modules.conv._ConvNd) -> None:
    first, second = layer.weight.shape[:2]
    if layer.groups == layer.out_channels == layer.in_channels:
        layer.in_channels = layer.out_channels = layer.groups = first
    elif layer.transposed:
        layer.in_channels, layer.out_channels = first, second * layer.groups
    else:
        layer.out_channels, layer.in_channels = first, second * layer.groups


def _tensor(module: nn.Module, name: str) -> Tensor:
    owner, _, key = name.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(owner), key)
    return tensor
