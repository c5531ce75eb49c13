"""Records: the layers of a model whose adapters are merged, or are to be merged, in a checkpoint and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from lightning_compress.adapters.merging import MERGED, NORMS, merge, merge_exactly, norms_of, unload
from lightning_compress.adapters.paths import AdditivePath, additive_paths, replaced_layers
from lightning_compress.carried import LAYERS, Shapes, Structure, carry
from lightning_compress.schemas import RecordError, fields_of, list_of, refuse, table_of, text

__all__ = ["ADAPTERS", "announce", "conclude"]

_COMPRESSED = "compressed_with_adapters"


def announce(module: nn.Module, paths: Iterable[AdditivePath]) -> None:
    """Note that weights of the LightningModule ``module`` are compressed with their adapters.

    Checkpoints carry the note, so that ``load_compressed`` merges; and ``merge_and_unload`` meets the trained weights.
    """
    for path in paths:
        vars(path.layer)[_COMPRESSED] = True
        vars(path.base).pop(NORMS, None)
        merge_exactly(path)
        carry(module, ADAPTERS)


def conclude(paths: Iterable[AdditivePath]) -> None:
    """Note the adapters that weights were compressed with: merging others warns."""
    for path in paths:
        vars(path.base)[NORMS] = norms_of(path)


def _announced(module: nn.Module) -> list[AdditivePath]:
    return [path for path in additive_paths(module) if _COMPRESSED in vars(path.layer)]


def _record(module: nn.Module) -> dict[str, Any]:
    replaced = replaced_layers(module)
    bases = {id(base) for _, base in replaced.values()}
    merged = [name for name, part in module.named_modules() if MERGED in vars(part) and id(part) not in bases]
    announced = _announced(module)
    if not (merged or announced):
        return {}
    copies = replaced.keys() - {path.name for path in additive_paths(module)}  # of modules_to_save
    added = [path.name for path in announced] + sorted(copies if announced else ())
    norms = {path.name: list(vars(path.base)[NORMS]) for path in announced if NORMS in vars(path.base)}
    return {"merged": merged, "added": added, "norms": norms}


def _attach(module: nn.Module, record: dict[str, Any]) -> None:
    unload(module, [pair for name, pair in replaced_layers(module).items() if name in record["merged"]])


def _check(module: nn.Module, record: dict[str, Any], shapes: Shapes) -> None:
    _SCHEMA(record, "adapters")
    layers = dict(module.named_modules())
    for name in (*record["merged"], *record["added"]):
        if name not in layers:
            raise refuse("adapters", "names of layers", name)


def _alters(record: dict[str, Any]) -> bool:
    return False  # the names in the state dict say whether adapters are merged


def _finish(module: nn.Module, record: dict[str, Any], shapes: Shapes) -> None:
    for path in additive_paths(module):
        if path.name in record["norms"]:
            vars(path.base)[NORMS] = tuple(record["norms"][path.name])
        if path.name in record["added"] and path.weight_name not in shapes:
            raise RecordError(
                f"need the weight {path.weight_name!r} to merge adapters, got a checkpoint of adapters alone: resume "
                "it in a Trainer with the callbacks that wrote it, and save or export the module after fit"
            )
    merge(module, record["added"])


def _number(value: Any, place: str) -> None:
    if type(value) is not float:
        raise refuse(place, "a number", value)


_SCHEMA = fields_of({"merged": list_of(text), "added": list_of(text), "norms": table_of(list_of(_number, 2))})
ADAPTERS = Structure("adapters", _record, _attach, order=LAYERS, check=_check, alters=_alters, finish=_finish)
