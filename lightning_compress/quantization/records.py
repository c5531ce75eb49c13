"""Records: what a checkpoint says of a quantized module beyond its weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.carried import Structure
from lightning_compress.quantization.activations.quantizers import (
    ActivationQuantizer,
    Place,
    attach_quantizer,
    detach_quantizers,
    quantizers_of,
)
from lightning_compress.quantization.grids import Grid, precise
from lightning_compress.quantization.weights import clear_grids, grids_of, set_grid

__all__ = ["QUANTIZATION", "detach"]


def detach(module: nn.Module) -> None:
    """Take all that quantization noted on ``module`` or attached to it off again; the weights stay."""
    clear_grids(module)
    detach_quantizers(module)


def _record(module: nn.Module) -> dict[str, Any]:
    grids = {name: dict(vars(grid)) for name, grid in grids_of(module).items()}
    quantizers = [
        {
            "module": place.module,
            "side": place.side,
            "bits": quantizer.bits,
            "low": quantizer.low.detach(),
            "high": quantizer.high.detach(),
            "positive": quantizer.positive,
            "enabled": quantizer.enabled,
        }
        for place, quantizer in quantizers_of(module).items()
    ]
    return {"grids": grids, "quantizers": quantizers} if grids or quantizers else {}


def _attach(module: nn.Module, record: dict[str, Any]) -> None:
    detach(module)
    for name, grid in record["grids"].items():
        set_grid(module, name, Grid(**grid))
    for entry in record["quantizers"]:
        quantizer = ActivationQuantizer(entry["bits"], entry["low"], entry["high"])
        quantizer.positive, quantizer.enabled = entry["positive"], entry["enabled"]
        quantizer.settle()
        attach_quantizer(module, Place(entry["module"], entry["side"]), quantizer)


def _narrow(module: nn.Module, cut: Callable[[str, Tensor], Tensor]) -> None:
    narrowed = {}
    for name, grid in grids_of(module).items():
        weight = module.get_parameter(name).detach()
        granularity, left = grid.granularity(weight.shape), cut(name, weight)
        granularity.check(name, grid.outputs_first(left).shape)
        narrowed[name] = part = grid.part(granularity, weight.shape, partial(cut, name))
        if not torch.equal(part.project(precise(left)), cut(name, grid.project(precise(weight)))):
            raise ValueError(
                f"need channels to cut that fill whole groups of weights, got others in {name!r} with "
                f"granularity={granularity}: use PerChannel()"
            )
    for name, grid in narrowed.items():
        set_grid(module, name, grid)


QUANTIZATION = Structure("quantization", _record, _attach, _narrow)
