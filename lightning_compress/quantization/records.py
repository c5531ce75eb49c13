"""Records: what a checkpoint says of a quantized module beyond its weights."""

from __future__ import annotations

from typing import Any

from torch import nn

from lightning_compress.quantization.activations import (
    ActivationQuantizer,
    Place,
    attach_quantizer,
    detach_quantizers,
    quantizers_of,
)
from lightning_compress.quantization.grids import Grid
from lightning_compress.quantization.weights import clear_grids, grids_of, set_grid
from lightning_compress.training.structures import Structure

__all__ = ["QUANTIZATION", "detach"]


def detach(module: nn.Module) -> None:
    """Take all that quantization noted on ``module`` or attached to it off again; the weights stay."""
    clear_grids(module)
    detach_quantizers(module)


def _record(module: nn.Module) -> dict[str, Any]:
    grids = {
        name: {"scale": grid.scale, "zero_point": grid.zero_point, "low": grid.low, "high": grid.high}
        for name, grid in grids_of(module).items()
    }
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


QUANTIZATION = Structure("quantization", _record, _attach)
