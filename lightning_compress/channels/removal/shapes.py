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

from lightning_compress.carried import SHAPES, Shapes, Structure, copies
from lightning_compress.channels.heads import head_attributes
from lightning_compress.channels.removal.hollow import Hollow, hollow_, is_leaf, refill_
from lightning_compress.channels.removal.surgery import replace_
from lightning_compress.schemas import Schema, fields_of, list_of, refuse, table_of, whole

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
        "shapes": {name: list(tensor.shape) for name, tensor in _tensors(module).items()},
        "numbers": {name: found for name, found in numbers.items() if found},
        "hollow": _hollow(module),
    }


@torch.no_grad()
def conform_(module: nn.Module, record: dict[str, Any]) -> None:
    """Give ``module`` the shapes that :func:`record` described; tensors that change their shape are zero afterwards."""
    _conform_hollow_(module, record)
    changed: dict[Tensor, Tensor] = {}
    for name, old in _tensors(module).items():
        shape = record["shapes"].get(name, list(old.shape))
        if shape != list(old.shape):
            new = torch.zeros(shape, dtype=old.dtype, device=old.device)
            changed[old] = nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new
    replace_(module, changed)
    for name, numbers in record["numbers"].items():
        for key, value in numbers.items():
            setattr(module.get_submodule(name), key, value)
    vars(module)[_DENSE] = record["dense"]


def check(module: nn.Module, record: dict[str, Any], shapes: Shapes) -> None:
    """Compare a record with the tensors and layers of ``module``, and with the shapes in the same file.

    Raises:
        RecordError: the record is not one of this model.
    """
    _SCHEMA(record, "channels")
    for place, described in (("channels", record), ("channels.dense", record["dense"])):
        if described:
            _check_layers(place, module, described)
    dense = record["dense"].get("shapes", {})
    former = vars(module).get(_DENSE, {}).get("shapes", {})
    for name, tensor in _tensors(module).items():
        own, place = list(tensor.shape), f"channels.shapes[{name!r}]"
        new = record["shapes"].get(name, own)
        if new != own and (len(new) != len(own) or not all(new) or (shapes and shapes.get(name) != new)):
            raise refuse(place, f"the shape in the state dict, {shapes.get(name)}", new)
        if dense.get(name, own) not in (own, new, former.get(name)):
            raise refuse(
                f"channels.dense.shapes[{name!r}]", f"the shape {former.get(name, own)} of this model", dense[name]
            )


def _check_layers(place: str, module: nn.Module, described: dict[str, Any]) -> None:
    layers = dict(module.named_modules())
    for name, numbers in described["numbers"].items():
        if name not in layers or not numbers.keys() <= head_attributes(layers[name]).keys():
            raise refuse(f"{place}.numbers[{name!r}]", "numbers of heads of a layer", numbers)
    for name, count in described.get("hollow", {}).items():
        layer: Any = layers.get(name)
        if layer is None or not is_leaf(layer):
            raise refuse(f"{place}.hollow[{name!r}]", "the name of a layer", count)
        most = max((max(tensor.shape, default=0) for tensor in _dense_layer(layer).parameters()), default=0)
        if count > most:
            raise refuse(f"{place}.hollow[{name!r}]", f"at most {most} channels", count)


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """The state dict without extra state of other kinds."""
    state = module.state_dict(keep_vars=True)
    return {name: tensor for name, tensor in state.items() if isinstance(tensor, Tensor)}


def _dense_layer(layer: nn.Module) -> nn.Module:
    return layer._layer[0] if isinstance(layer, Hollow) else layer


def _conform_hollow_(module: nn.Module, record: dict[str, Any]) -> None:
    """Make the layers hollow that the record lists, and no others."""
    outputs = record.get("hollow", {})
    for name in _hollow(module):
        if name not in outputs:
            refill_(module, name)
    hollow_(module, {name: f"{name}.bias" in record["shapes"] for name in outputs})
    for name, count in outputs.items():
        layer: Any = module.get_submodule(name)
        layer.outputs = count


def _hollow(module: nn.Module) -> dict[str, int]:
    """Hollow layer -> number of its output channels."""
    return {name: layer.outputs for name, layer in module.named_modules() if isinstance(layer, Hollow)}


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


def _alters(record: dict[str, Any]) -> bool:
    dense = record["dense"]
    return bool(dense) and any(dense.get(key, {}) != record.get(key, {}) for key in ("shapes", "numbers", "hollow"))


_DESCRIPTION: dict[str, Schema] = {
    "shapes": table_of(list_of(whole(0, 1 << 40))),
    "numbers": table_of(table_of(whole(1, 1 << 20))),
}
_HOLLOW: dict[str, Schema] = {"hollow": table_of(whole(0, 1 << 40))}


def _dense(value: Any, place: str) -> None:
    if value != {}:
        fields_of(_DESCRIPTION, optional=_HOLLOW)(value, place)


_SCHEMA = fields_of({**_DESCRIPTION, "dense": _dense}, optional=_HOLLOW)
CHANNELS = Structure("channels", record, _attach, order=SHAPES, check=check, alters=_alters)
