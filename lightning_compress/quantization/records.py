"""Records: the grids and quantizers of a module as a checkpoint carries them.

A grid is recorded by the name of its class and its fields. The name is compared with the classes that the module
recognizes, and is never imported: those of this package, and those that a callback or :func:`load_compressed` named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
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
from lightning_compress.quantization.grids import Grid, built_in_grids, precise
from lightning_compress.quantization.weights import clear_grids, grids_of, set_grid

__all__ = ["QUANTIZATION", "detach", "recognize_grids"]

_RECOGNIZED = "_recognized_grids"


def detach(module: nn.Module) -> None:
    """Remove all grids and quantizers from ``module``; the weights keep their values."""
    clear_grids(module)
    detach_quantizers(module)


def recognize_grids(module: nn.Module, kinds: Iterable[type[Grid]]) -> None:
    """Let ``module`` take grids of these classes from a checkpoint, besides those of this package.

    Raises:
        TypeError: one of them is no subclass of :class:`Grid`.
    """
    recognized = vars(module).setdefault(_RECOGNIZED, built_in_grids())
    for kind in kinds:
        if not (isinstance(kind, type) and issubclass(kind, Grid)):
            raise TypeError(f"need grids as subclasses of Grid, got {kind!r}")
        recognized[kind.__name__] = kind


def _record(module: nn.Module) -> dict[str, Any]:
    grids = {name: {"kind": type(grid).__name__, "fields": grid.record()} for name, grid in grids_of(module).items()}
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
    for name, entry in record["grids"].items():
        set_grid(module, name, _restored(module, name, entry["kind"], entry["fields"]))
    for entry in record["quantizers"]:
        quantizer = ActivationQuantizer(entry["bits"], entry["low"], entry["high"])
        quantizer.positive, quantizer.enabled = entry["positive"], entry["enabled"]
        quantizer.rescale()
        attach_quantizer(module, Place(entry["module"], entry["side"]), quantizer)


def _restored(module: nn.Module, name: str, kind: str, fields: dict[str, Any]) -> Grid:
    recognize_grids(module, ())
    recognized: dict[str, type[Grid]] = vars(module)[_RECOGNIZED]
    if kind not in recognized:
        raise ValueError(
            f"need the class of the grid {kind!r} of {name!r}, got only {', '.join(sorted(recognized))}: pass it to "
            f"load_compressed(..., grids=({kind},)), or resume with the scale function that returns such a grid"
        )
    return recognized[kind].restore(fields)


def _narrow(module: nn.Module, narrow: Callable[[str, Tensor], Tensor]) -> None:
    narrowed = {}
    for name, grid in grids_of(module).items():
        weight = module.get_parameter(name).detach()
        granularity, part = grid.granularity(weight.shape), narrow(name, weight)
        granularity.check(name, grid.outputs_first(part).shape)
        narrowed[name] = grid.part(granularity, weight.shape, partial(narrow, name))
        if not torch.equal(narrowed[name].project(precise(part)), narrow(name, grid.project(precise(weight)))):
            raise ValueError(
                f"need removed channels to fill whole groups of weights, got others in {name!r} with "
                f"granularity={granularity}: use PerChannel()"
            )
    for name, grid in narrowed.items():
        set_grid(module, name, grid)


QUANTIZATION = Structure("quantization", _record, _attach, _narrow)
