"""Shapes: the part of a checkpoint that describes a model whose channels may have been removed.

The record is absolute: the shape of every tensor, the numbers of attention heads, the layers of removed residual
branches. A model that is loaded takes these shapes, whether it was wider or narrower before, and the strict load of the
weights then fits.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.carried import SHAPES, Structure, copies
from lightning_compress.channels.heads import head_attributes
from lightning_compress.channels.removal.hollow import Hollow, hollow_, is_leaf, refill_
from lightning_compress.channels.removal.surgery import replace_

__all__ = ["CHANNELS", "conform_", "dense_copy", "dense_sizes", "record", "verify_shapes"]

_DENSE = "_dense_structure"  # attribute of a module that holds the record of its dense shapes


def record(module: nn.Module) -> dict[str, Any]:
    """Describe the shapes of ``module``, and those before any channel was removed, in numbers and strings.

    >>> record(nn.Linear(2, 3))
    {'shapes': {'weight': [3, 2], 'bias': [3]}, 'numbers': {}, 'hollow': {}, 'dense': {}}
    """
    return {**_description(module), "dense": vars(module).get(_DENSE, {})}


def _description(module: nn.Module) -> dict[str, Any]:
    numbers = {name: head_attributes(layer) for name, layer in module.named_modules()}
    return {
        "shapes": {name: list(tensor.shape) for name, tensor in module.state_dict().items()},
        "numbers": {name: found for name, found in numbers.items() if found},
        "hollow": _hollow(module),
    }


@torch.no_grad()
def conform_(module: nn.Module, record: dict[str, Any]) -> None:
    """Give ``module`` the shapes that :func:`record` described; tensors that change their shape are zero afterwards.

    Raises:
        ValueError: the record is not one of this model.
    """
    _conform_hollow_(module, record)
    changed: dict[Tensor, Tensor] = {}
    for name, old in module.state_dict(keep_vars=True).items():
        shape = record["shapes"].get(name, list(old.shape))
        if shape != list(old.shape):
            if len(shape) != old.ndim or not all(type(size) is int and size > 0 for size in shape):
                raise _foreign(f"the shape {shape} for {name!r} of shape {list(old.shape)}")
            new = torch.zeros(shape, dtype=old.dtype, device=old.device)
            changed[old] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
    replace_(module, changed)
    layers = dict(module.named_modules())
    for name, numbers in record["numbers"].items():
        for key, value in numbers.items():
            if name not in layers or key not in head_attributes(layers[name]) or type(value) is not int:
                raise _foreign(f"{key}={value} for {name!r}")
            setattr(layers[name], key, value)
    vars(module)[_DENSE] = record["dense"]


def _conform_hollow_(module: nn.Module, record: dict[str, Any]) -> None:
    """Make the layers hollow that the record lists, and no others."""
    outputs = record.get("hollow", {})
    for name in _hollow(module):
        if name not in outputs:
            refill_(module, name)
    layers = dict(module.named_modules())
    for name, count in outputs.items():
        if name not in layers or not is_leaf(layers[name]) or type(count) is not int or count < 0:
            raise _foreign(f"a removed branch through {name!r}")
    hollow_(module, {name: f"{name}.bias" in record["shapes"] for name in outputs})
    for name, count in outputs.items():
        layer: Any = module.get_submodule(name)
        layer.outputs = count


def _hollow(module: nn.Module) -> dict[str, int]:
    """Hollow layer -> number of its output channels."""
    return {name: layer.outputs for name, layer in module.named_modules() if isinstance(layer, Hollow)}


def _foreign(found: str) -> ValueError:
    return ValueError(f"need a checkpoint of this model, got one with {found}")


def dense_sizes(module: nn.Module) -> dict[str, list[int]]:
    """Shapes in the state dict of ``module`` before any channel was removed; the first call records them."""
    if not vars(module).get(_DENSE):
        vars(module)[_DENSE] = _description(module)
    shapes: dict[str, list[int]] = vars(module)[_DENSE]["shapes"]
    return shapes


def dense_copy(module: nn.Module) -> nn.Module:
    """A copy of ``module`` with the shapes before any channel was removed; removed entries are zero."""
    dense = copy.deepcopy(module)
    dense_sizes(module)
    conform_(dense, {**vars(module)[_DENSE], "dense": {}})
    return dense


def verify_shapes(module: nn.Module, planned: Mapping[str, Sequence[int]]) -> None:
    """Check the shapes of the parameters after a removal.

    Args:
        module: the model.
        planned: parameter name -> shape.

    Raises:
        RuntimeError: a parameter has another shape, is missing, or should be gone.
    """
    shapes = {name: list(parameter.shape) for name, parameter in module.named_parameters()}
    for name in dict.fromkeys((*planned, *shapes)):
        if shapes.get(name) != planned.get(name):
            raise RuntimeError(
                f"need {name!r} of shape {planned.get(name)} after the removal of channels, got {shapes.get(name)}"
            )


def _attach(module: nn.Module, record: dict[str, Any]) -> None:
    for model in (*copies(module), module):
        conform_(model, record)


CHANNELS = Structure("channels", record, _attach, order=SHAPES)
