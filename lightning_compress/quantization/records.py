"""Records: the grids and quantizers of a module as a checkpoint carries them.

A grid is recorded by the name of its class and its fields. The name is compared with the classes that the module
recognizes, and is never imported: those of this package, and those that a callback or :func:`load_compressed` named.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.carried import Shapes, Structure
from lightning_compress.quantization.activations.quantizers import (
    ActivationQuantizer,
    Place,
    RowQuantizer,
    attach_quantizer,
    detach_quantizers,
    quantizers_of,
)
from lightning_compress.quantization.grids import AffineGrid, Grid, built_in_grids, precise
from lightning_compress.quantization.weights import clear_grids, grids_of, set_grid
from lightning_compress.schemas import (
    RecordError,
    anything,
    fields_of,
    list_of,
    number_tensor,
    one_of,
    refuse,
    stored,
    table_of,
    text,
    truth,
    whole,
)

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
            "symmetric": quantizer.symmetric,
        }
        for place, quantizer in quantizers_of(module).items()
        if isinstance(quantizer, ActivationQuantizer)
    ]
    rows = [
        {"module": place.module, "side": place.side, "bits": quantizer.bits, "enabled": quantizer.enabled}
        for place, quantizer in quantizers_of(module).items()
        if isinstance(quantizer, RowQuantizer)
    ]
    found = {"grids": grids, "quantizers": quantizers} if grids or quantizers or rows else {}
    return {**found, "rows": rows} if rows else found


def _attach(module: nn.Module, record: dict[str, Any]) -> None:
    detach(module)
    for name, entry in record["grids"].items():
        set_grid(module, name, _restored(module, name, entry))
    for entry in record["quantizers"]:
        quantizer = ActivationQuantizer(
            entry["bits"], entry["low"], entry["high"], symmetric=entry.get("symmetric", False)
        )
        quantizer.positive, quantizer.enabled = entry["positive"], entry["enabled"]
        quantizer.rescale()
        attach_quantizer(module, Place(entry["module"], entry["side"]), quantizer)
    for entry in record.get("rows", ()):
        of_rows = RowQuantizer(entry["bits"])
        of_rows.enabled = entry["enabled"]
        attach_quantizer(module, Place(entry["module"], entry["side"]), of_rows)


def _restored(module: nn.Module, name: str, entry: dict[str, Any]) -> Grid:
    recognize_grids(module, ())
    recognized: dict[str, type[Grid]] = vars(module)[_RECOGNIZED]
    kind, place = entry["kind"], f"quantization.grids[{name!r}]"
    if kind not in recognized:
        raise RecordError(
            f"need the class of the grid {kind!r} of {name!r}, got only {', '.join(sorted(recognized))}: pass it to "
            f"load_compressed(..., grids=({kind},)), or resume with the scale function that returns such a grid"
        )
    if issubclass(recognized[kind], AffineGrid):
        _AFFINE(entry["fields"], f"{place}.fields")
        if not bool((stored(entry["fields"]["scale"]) > 0).all()):
            raise refuse(f"{place}.fields.scale", "numbers above 0", entry["fields"]["scale"])
    try:
        return recognized[kind].restore(entry["fields"])
    except Exception as error:  # a grid of the user's own has fields of its own
        raise refuse(place, f"fields of a {kind} ({error})", list(entry["fields"])) from error


def check(module: nn.Module, record: dict[str, Any], shapes: Shapes) -> None:
    """Compare a record with the weights and layers of ``module``, and with the shapes in the same file.

    Raises:
        RecordError: the record is not one of this model.
    """
    _SCHEMA(record, "quantization")
    weights = dict(module.named_parameters(remove_duplicate=False))
    for name, entry in record["grids"].items():
        place = f"quantization.grids[{name!r}]"
        if name not in weights:
            raise refuse(place, "the grid of a weight of this model", entry["kind"])
        grid, shape = _restored(module, name, entry), shapes.get(name, list(weights[name].shape))
        if {len(tensor) if tensor.ndim else 0 for tensor in grid._tensors().values()} - {grid.rows}:
            raise refuse(place, f"{grid.rows} rows in every tensor", list(entry["fields"]))
        if not grid.rows or math.prod(shape) % grid.rows:
            raise refuse(place, f"rows of a weight of shape {shape}", grid.rows)
    layers = dict(module.named_modules())
    for key in ("quantizers", "rows"):
        for index, entry in enumerate(record.get(key, ())):
            if entry["module"] not in layers:
                raise refuse(f"quantization.{key}[{index}].module", "the name of a layer", entry["module"])


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


def _alters(record: dict[str, Any]) -> bool:
    return bool(record["quantizers"] or record.get("rows"))


_CODES = whole(-(1 << 15), 1 << 15)
_AFFINE = fields_of(
    {"scale": number_tensor(2), "zero_point": number_tensor(2), "low": _CODES, "high": _CODES, "transposed": truth}
)
_PLACE = {"module": text, "side": one_of("input", "output"), "bits": whole(2, 16), "enabled": truth}
_QUANTIZER = fields_of(
    {**_PLACE, "low": number_tensor(0), "high": number_tensor(0), "positive": truth}, optional={"symmetric": truth}
)
_GRID = fields_of({"kind": text, "fields": table_of(anything)})
_SCHEMA = fields_of(
    {"grids": table_of(_GRID), "quantizers": list_of(_QUANTIZER)}, optional={"rows": list_of(fields_of(_PLACE))}
)
QUANTIZATION = Structure("quantization", _record, _attach, _narrow, check=check, alters=_alters)
