"""Structures: the shapes of a model whose channels may have been cut, in a checkpoint and back.

What is written is absolute: the shape of every tensor, the numbers of attention heads, the layers that have gone with a
branch. A model that is loaded takes these shapes, whether it was wider or narrower before, and the strict load of the
weights then fits.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.carried import Structure, copies
from lightning_compress.channels.cutting.hollow import Hollow, hollow_, is_leaf, refill_
from lightning_compress.channels.cutting.surgery import replace_
from lightning_compress.channels.dependencies.graph import HEAD_COUNTS, HEAD_TOTALS

__all__ = ["CHANNELS", "conform_", "dense_copy", "dense_sizes", "record"]

_DENSE = "_dense_structure"


def record(module: nn.Module) -> dict[str, Any]:
    """Describe the shapes of ``module``, and those that it had before any channel was cut, in numbers and strings.

    >>> record(nn.Linear(2, 3))
    {'shapes': {'weight': [3, 2], 'bias': [3]}, 'numbers': {}, 'hollow': {}, 'dense': {}}
    """
    return {**_described(module), "dense": vars(module).get(_DENSE, {})}


def _described(module: nn.Module) -> dict[str, Any]:
    numbers = {name: _numbers(layer) for name, layer in module.named_modules()}
    return {
        "shapes": {name: list(tensor.shape) for name, tensor in module.state_dict().items()},
        "numbers": {name: found for name, found in numbers.items() if found},
        "hollow": _hollow(module),
    }


@torch.no_grad()
def conform_(module: nn.Module, record: dict[str, Any]) -> None:
    """Give ``module`` the shapes that :func:`record` described; tensors of another shape than before are zero.

    Raises:
        ValueError: the record is not one of this model.
    """
    _empty_(module, record)
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
            if name not in layers or key not in _numbers(layers[name]) or type(value) is not int:
                raise _foreign(f"{key}={value} for {name!r}")
            setattr(layers[name], key, value)
    vars(module)[_DENSE] = record["dense"]


def _empty_(module: nn.Module, record: dict[str, Any]) -> None:
    """Make those layers hollow that the record says, and no others."""
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
    """Hollow layer -> how many channels it gives."""
    return {name: layer.outputs for name, layer in module.named_modules() if isinstance(layer, Hollow)}


def _numbers(layer: nn.Module) -> dict[str, int]:
    """The numbers of heads that a layer keeps."""
    return {key: vars(layer)[key] for key in (*HEAD_COUNTS, *HEAD_TOTALS) if type(vars(layer).get(key)) is int}


def _foreign(found: str) -> ValueError:
    return ValueError(f"need a checkpoint of this model, got one with {found}")


def dense_sizes(module: nn.Module) -> dict[str, list[int]]:
    """Shapes in the state dict that ``module`` had before any channel was cut; remembered from the first call on."""
    if not vars(module).get(_DENSE):
        vars(module)[_DENSE] = _described(module)
    shapes: dict[str, list[int]] = vars(module)[_DENSE]["shapes"]
    return shapes


def dense_copy(module: nn.Module) -> nn.Module:
    """A copy of ``module`` of the shapes that it had before any channel was cut; what was cut is zero."""
    dense = copy.deepcopy(module)
    dense_sizes(module)
    conform_(dense, {**vars(module)[_DENSE], "dense": {}})
    return dense


def _attach(module: nn.Module, record: dict[str, Any]) -> None:
    for model in (*copies(module), module):
        conform_(model, record)


CHANNELS = Structure("channels", record, _attach)
