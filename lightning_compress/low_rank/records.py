"""Records: the layers of a model that are split, in a checkpoint and back."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lightning_compress.carried import LAYERS, Shapes, Structure, copies
from lightning_compress.low_rank.layers import Factorized, factorized_layers, merge_, obstacle, split_
from lightning_compress.schemas import fields_of, list_of, refuse, table_of, whole

__all__ = ["LOW_RANK", "conform_", "record"]


def record(module: nn.Module) -> dict[str, Any]:
    """Describe the split layers of ``module``: name -> outputs, rank, and columns of the right factor.

    A model without a split layer has a record, too: it makes a model that is split whole again.

    >>> record(nn.Linear(3, 2))
    {'split': {}}
    """
    return {"split": {name: _sizes(layer) for name, layer in factorized_layers(module).items()}}


def conform_(module: nn.Module, record: dict[str, Any]) -> None:
    """Split those layers of ``module`` that :func:`record` described, and no others; new factors are zero."""
    for name, layer in factorized_layers(module).items():
        if record["split"].get(name) != _sizes(layer):
            merge_(layer)
    for name, (outputs, rank, columns) in record["split"].items():
        whole_layer = module.get_submodule(name)
        if not isinstance(whole_layer, Factorized):
            device = whole_layer.get_parameter("weight").device
            split_(whole_layer, torch.zeros(outputs, rank, device=device), torch.zeros(rank, columns, device=device))


def check(module: nn.Module, record: dict[str, Any], shapes: Shapes) -> None:
    """Compare a record with the layers of ``module``, and with the shapes in the same file.

    Raises:
        RecordError: the record is not one of this model.
    """
    _SCHEMA(record, "low_rank")
    layers = dict(module.named_modules())
    for name, sizes in record["split"].items():
        place = f"low_rank.split[{name!r}]"
        layer = layers.get(name)
        if layer is None or not (isinstance(layer, Factorized) or not obstacle(layer)):
            raise refuse(place, "sizes of a linear layer or convolution", sizes)
        kernel = _kernel(layer)
        outputs, rank, columns = sizes
        if columns % kernel.numel():
            raise refuse(place, f"columns for a kernel of {list(kernel)}", sizes)
        factors = {"first": [rank, columns // kernel.numel(), *kernel], "second": [outputs, rank, *[1] * len(kernel)]}
        for part, shape in factors.items():
            weight = f"{name}.{part}.weight".removeprefix(".")
            if shapes and shapes.get(weight) != shape:
                raise refuse(place, f"sizes of {weight!r}, which has the shape {shapes.get(weight)}", sizes)


def _kernel(layer: nn.Module) -> torch.Size:
    weight = layer.first.get_parameter("weight") if isinstance(layer, Factorized) else layer.get_parameter("weight")
    return weight.shape[2:]


def _sizes(layer: nn.Module) -> list[int]:
    first, second = (layer.get_parameter(f"{part}.weight") for part in ("first", "second"))
    return [len(second), len(first), first[0].numel()]


def _attach(module: nn.Module, record: dict[str, Any]) -> None:
    for model in (*copies(module), module):
        conform_(model, record)


def _alters(record: dict[str, Any]) -> bool:
    return bool(record["split"])


_SCHEMA = fields_of({"split": table_of(list_of(whole(1, 1 << 40), length=3))})
LOW_RANK = Structure("low_rank", record, _attach, order=LAYERS, check=check, alters=_alters)
