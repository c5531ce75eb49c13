"""Records: the layers of a model whose adapters are merged, or are to be merged, in a checkpoint and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from lightning_compress.adapters.merging import MERGED, merge, merge_exactly, unload
from lightning_compress.adapters.paths import AdditivePath, additive_paths
from lightning_compress.carried import LAYERS, Shapes, Structure, carry
from lightning_compress.schemas import RecordError, fields_of, list_of, refuse, text

__all__ = ["ADAPTERS", "announce"]

_COMPRESSED = "compressed_with_adapters"


def announce(module: nn.Module, paths: Iterable[AdditivePath]) -> None:
    """Note that weights of the LightningModule ``module`` are compressed with their adapters.

    Checkpoints carry the note, so that ``load_compressed`` merges; and ``merge_and_unload`` meets the trained weights.
    """
    for path in paths:
        vars(path.layer)[_COMPRESSED] = True
        merge_exactly(path)
        carry(module, ADAPTERS)


def _announced(module: nn.Module) -> list[str]:
    return [path.name for path in additive_paths(module) if _COMPRESSED in vars(path.layer)]


def _record(module: nn.Module) -> dict[str, Any]:
    bases = {id(path.base) for path in additive_paths(module)}
    merged = [name for name, part in module.named_modules() if MERGED in vars(part) and id(part) not in bases]
    added = _announced(module)
    return {"merged": merged, "added": added} if merged or added else {}


def _attach(module: nn.Module, record: dict[str, Any]) -> None:
    unload(module, [path for path in additive_paths(module) if path.name in record["merged"]])


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
        if path.name in record["added"] and path.weight_name not in shapes:
            raise RecordError(
                f"need the weight {path.weight_name!r} to merge adapters, got a checkpoint of adapters alone: resume "
                "it in a Trainer with the callbacks that wrote it, and save or export the module after fit"
            )
    merge(module, record["added"])


_SCHEMA = fields_of({"merged": list_of(text), "added": list_of(text)})
ADAPTERS = Structure("adapters", _record, _attach, order=LAYERS, check=_check, alters=_alters, finish=_finish)
