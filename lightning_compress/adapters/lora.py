"""LoRA of PEFT, recognized without importing PEFT: a model that has its layers has imported it."""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WEIGHT", "delta", "is_sum", "obstacle", "trained_copy"]

WEIGHT = "base_layer.weight"
"""Name of the weight in a layer of PEFT."""

_SUMS = ("Linear", "Embedding", "_ConvNd")


def is_sum(layer: nn.Module) -> bool:
    """Whether ``layer`` is a LoRA layer of PEFT that computes with its weight plus the sum of its adapters."""
    return _is_adapted(layer) and not obstacle(layer)


def obstacle(layer: nn.Module) -> str:
    """A few words on the adapters of PEFT at ``layer``, if the layer is more than a sum; empty otherwise."""
    if not _is_adapted(layer):
        return ""
    kind = type(layer)
    name = f"{kind.__module__.rpartition('.')[0].rpartition('.')[2]}.{kind.__name__}"
    if not isinstance(layer, _classes("peft.tuners.lora.layer", _SUMS)):
        return name
    held: Any = layer
    if not isinstance(getattr(held.base_layer, "weight", None), nn.Parameter):
        return f"{name} on a {type(held.base_layer).__name__}"
    if getattr(held.base_layer, "groups", 1) > 1:
        return f"{name} on a convolution of groups, which PEFT cannot merge"
    variants = {type(held.lora_variant[one]).__name__ for one in _active(layer) if one in held.lora_variant}
    return f"{name} with {', '.join(sorted(variants))}" if variants else ""


def delta(layer: nn.Module) -> Tensor:
    """The sum of the active adapters of a LoRA layer, ``sum_i s_i B_i A_i``; 0 if they are switched off."""
    adapted: Any = layer
    active = [] if adapted.disable_adapters or adapted.merged else _active(layer)
    deltas = [_product(adapted, adapter) for adapter in active]
    return sum(deltas[1:], deltas[0]) if deltas else torch.zeros_like(adapted.base_layer.weight)


def _product(layer: Any, adapter: str) -> Tensor:
    """``get_delta_weight`` of an adapter; that of a linear layer with the same bits in half the memory."""
    formulas = [vars(linear)["get_delta_weight"] for linear in _classes("peft.tuners.lora.layer", ("Linear",))]
    plain = getattr(type(layer), "get_delta_weight", None) in formulas
    if not plain or layer.lora_A[adapter].weight.dtype not in (torch.float32, torch.float64):
        delta: Tensor = layer.get_delta_weight(adapter)
        return delta
    down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    product: Tensor = (up @ down).mul_(layer.scaling[adapter])
    return product.t() if layer.fan_in_fan_out else product


def trained_copy(layer: nn.Module) -> nn.Module | None:
    """The module that computes for one of ``modules_to_save``, of which PEFT trains a copy; None for other layers."""
    if not isinstance(layer, _classes("peft.utils.other", ("ModulesToSaveWrapper",))):
        return None
    held: Any = layer
    active = [] if held.disable_adapters else [one for one in held.active_adapters if one in held.modules_to_save]
    computing: nn.Module = held.modules_to_save[active[0]] if active else held.original_module
    return computing


def _active(layer: nn.Module) -> list[str]:
    adapted: Any = layer
    return [one for one in adapted.active_adapters if one in adapted.lora_A or one in adapted.lora_embedding_A]


def _is_adapted(layer: nn.Module) -> bool:
    return isinstance(layer, _classes("peft.tuners.tuners_utils", ("BaseTunerLayer",))) and hasattr(layer, "base_layer")


def _classes(module: str, names: tuple[str, ...]) -> tuple[type, ...]:
    """Classes of a module that is imported; none if it is not."""
    imported = sys.modules.get(module)
    return tuple(getattr(imported, name) for name in names if hasattr(imported, name))
