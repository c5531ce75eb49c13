"""Records: the layers of a model that are split, in a checkpoint and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lightning_compress.carried import LAYERS, Structure, copies
from lightning_compress.low_rank.layers import factorized_layers, merge_, obstacle, split_

__all__ = ["LOW_RANK", "conform_", "record"]


def record(module: nn.Module) -> dict[str, Any]:
    """Describe the split layers of ``module``: name -> outputs, rank, and columns of the right factor.

    A model without a split layer has a record, too: it makes a model that is split whole again.

    >>> record(nn.Linear(3, 2))
    {'split': {}}
    """
    return {"split": {name: _sizes(layer) for name, layer in factorized_layers(module).items()}}


def conform_(module: nn.Module, record: dict[str, Any]) -> None:
    """Split those layers of ``module`` that :func:`record` described, and no others; new factors are zero.

    Raises:
        ValueError: the record is not one of this model.
    """
    for name, layer in factorized_layers(module).items():
        if record["split"].get(name) != _sizes(layer):
            merge_(layer)
    layers = {name: layer for name, layer in module.named_modules() if name in record["split"]}
    for name, sizes in record["split"].items():
        if name in factorized_layers(module):
            continue
        if name not in layers or obstacle(layers[name]) or not _are_sizes(sizes, layers[name]):
            raise ValueError(f"need a checkpoint of this model, got one with {name!r} split into factors of {sizes!r}")
        outputs, rank, columns = sizes
        device = layers[name].get_parameter("weight").device
        split_(layers[name], torch.zeros(outputs, rank, device=device), torch.zeros(rank, columns, device=device))


def _sizes(layer: nn.Module) -> list[int]:
    first, second = (layer.get_parameter(f"{part}.weight") for part in ("first", "second"))
    return [len(second), len(first), first[0].numel()]


def _are_sizes(sizes: Any, layer: nn.Module) -> bool:
    return (
        isinstance(sizes, list)
        and len(sizes) == 3
        and all(type(size) is int and size > 0 for size in sizes)
        and sizes[2] % layer.get_parameter("weight").shape[2:].numel() == 0
    )


def _attach(module: nn.Module, record: dict[str, Any]) -> None:
    for model in (*copies(module), module):
        conform_(model, record)


LOW_RANK = Structure("low_rank", record, _attach, order=LAYERS)
