"""Loading a checkpoint that carries records beside the state dict."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, TypeVar, cast

from lightning_compress.carried import Structure, attach_structure, carried_keys, carry
from lightning_compress.quantization.grids import Grid
from lightning_compress.quantization.records import recognize_grids

__all__ = ["load_compressed"]

_Module = TypeVar("_Module", bound=Any)
_PACKAGE = __name__.partition(".")[0]


def load_compressed(
    cls: type[_Module],
    ckpt_path: str | Path,
    *,
    grids: Sequence[type[Grid]] = (),
    structures: Sequence[Structure] = (),
    **init_args: Any,
) -> _Module:
    """Load a compressed LightningModule with its carried records: removed channels, split layers, quantizers.

    It needs no Trainer and no callback. The file is read with ``weights_only=True``: it cannot run code. A checkpoint
    without carried records is loaded as ``cls.load_from_checkpoint`` does.

    Args:
        cls: class of the LightningModule.
        ckpt_path: a checkpoint that the Trainer wrote.
        grids: classes of the grids of your own that the weights were trained on; a file names them and holds no code.
        structures: structures of methods of other packages, for the records that they wrote.
        init_args: arguments of ``cls`` that its saved hyperparameters do not hold.

    Returns:
        the module, which computes in evaluation the outputs that were validated.

    Raises:
        TypeError: ``cls`` is no class, or ``grids`` holds something else than subclasses of ``Grid``.
        ValueError: the checkpoint names a grid or a record that is neither one of this package nor given.
    """
    if not isinstance(cls, type):
        raise TypeError(f"need the class of the LightningModule as cls, got a {type(cls).__name__}")

    found: list[Structure] = []

    class Loaded(cls):  # type: ignore[misc, valid-type]
        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            recognize_grids(self, grids)
            found.extend(
                sorted((_find(key, structures) for key in carried_keys(checkpoint)), key=lambda one: one.order)
            )
            for structure in found:
                attach_structure(self, structure, checkpoint)
            super().on_load_checkpoint(checkpoint)

    module = Loaded.load_from_checkpoint(ckpt_path, weights_only=True, map_location="cpu", **init_args)
    module.__class__ = cls
    for structure in found:
        carry(module, structure)
    return cast(_Module, module)


def _find(key: str, given: Sequence[Structure]) -> Structure:
    """The structure of a key: one that was given, or that of the room of this name."""
    for structure in given:
        if structure.key == key:
            return structure
    rooms = [room.name for room in iter_modules(import_module(_PACKAGE).__path__) if room.ispkg]
    known = [room for room in rooms if find_spec(f"{_PACKAGE}.{room}.records") is not None]
    if key not in known:
        raise ValueError(
            f"need the structure of every record in the checkpoint, got a record {key!r} beside those of {known}: "
            f"update {_PACKAGE}, or pass the structure of the package that defines this method in structures"
        )
    structure = getattr(import_module(f"{_PACKAGE}.{key}.records"), key.upper())
    return cast(Structure, structure)
