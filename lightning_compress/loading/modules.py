"""Modules: a compressed module from a checkpoint or an archive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar, cast

from torch import nn

from lightning_compress.adapters import additive_paths
from lightning_compress.arguments import check_file, check_path, shown
from lightning_compress.carried import Structure, attach_structure, carried_records, carry, shapes_in
from lightning_compress.loading.checkpoints import (
    VERSION,
    archive_as_checkpoint,
    in_memory,
    is_archive,
    of_class,
    readable,
    require_arguments,
    require_entry,
)
from lightning_compress.loading.structures import find_structure
from lightning_compress.messages import listed
from lightning_compress.quantization.grids import Grid
from lightning_compress.quantization.records import recognize_grids
from lightning_compress.schemas import RecordError
from lightning_compress.state_dicts import difference

__all__ = ["carry_records", "load_compressed"]

_Module = TypeVar("_Module", bound=Any)


def load_compressed(
    cls: type[_Module],
    ckpt_path: str | Path,
    *,
    weights_only: bool = True,
    grids: Sequence[type[Grid]] = (),
    structures: Sequence[Structure] = (),
    **init_args: Any,
) -> _Module:
    """Load a compressed module with its carried records: removed channels, split layers, quantizers, merged adapters.

    It needs no Trainer and no callback. The file cannot run code. A checkpoint without carried records is loaded as
    ``cls.load_from_checkpoint`` does.

    Args:
        cls: class of the LightningModule; of an archive any module.
        ckpt_path: a checkpoint that the Trainer wrote, or an archive ``.lcz`` that
            :func:`~lightning_compress.deploy.export` wrote.
        weights_only: whether the file may build nothing but tensors and primitives. A hyperparameter of another kind, a
            loss or a partial, is then given in ``init_args``; an entry that ``on_save_checkpoint`` of the module wrote
            is left out. With False a checkpoint may run any code: trust its author.
        grids: classes of the grids of your own that the weights were trained on; a file names them and holds no code.
        structures: structures of methods of other packages, for the records that they wrote.
        init_args: arguments of ``cls``, which replace the hyperparameters in the file.

    Returns:
        the module, which computes in evaluation the outputs that were validated.

    Raises:
        TypeError: ``cls`` is no class or does not take an argument, or ``grids`` holds something else than subclasses
            of ``Grid``.
        ValueError: the file is no checkpoint of the Trainer, holds a state dict of another module, or lacks an argument
            of ``cls`` or an entry that its ``on_load_checkpoint`` reads.
        RecordError: a record in the file is damaged, not one of this model, or of a method that is neither one of this
            package nor given.
        ArchiveError: the archive is damaged.
    """
    if not isinstance(cls, type):
        raise TypeError(f"need the class of the module as cls, got a {type(cls).__name__}")
    lightning = hasattr(cls, "load_from_checkpoint")
    if not issubclass(cls, nn.Module) or not (lightning or is_archive(ckpt_path)):
        raise TypeError(f"need the class of the LightningModule of a checkpoint as cls, got {cls.__name__}")
    found: list[Structure] = []
    records: dict[str, Any] = {}
    shapes: dict[str, list[int]] = {}

    def attach(module: nn.Module, checkpoint: Mapping[str, Any]) -> None:
        recognize_grids(module, grids)
        records.update(carried_records(checkpoint))
        _check_adapters(module, records.get("adapters"), cls)
        shapes.update(shapes_in(checkpoint))
        wanted = [find_structure(key, structures) for key in records]
        found.extend(sorted(wanted, key=lambda one: one.order))
        for structure in found:
            attach_structure(module, structure, checkpoint)

    try:
        if lightning:
            module = _load_lightning(cls, ckpt_path, weights_only, attach, init_args)
        else:
            checkpoint = archive_as_checkpoint(ckpt_path, init_args)
            require_arguments(cls, {}, init_args)
            module = cls(**init_args)
            attach(module, checkpoint)
            module.load_state_dict(checkpoint["state_dict"])
    except RuntimeError as error:
        refused = _refused(error, cls, ckpt_path, found)
        if refused is None:
            raise
        raise refused from error
    for structure in found:
        structure.finish(module, records[structure.key], shapes)
        if lightning:
            carry(module, structure)
    return cast(_Module, module)


def carry_records(module: nn.Module, checkpoint: Mapping[str, Any]) -> list[Structure]:
    """Let a module that is built attach the records of a checkpoint when its Trainer loads it, without their methods.

    Args:
        module: a LightningModule.
        checkpoint: its content; tensors need no values.

    Returns:
        the structures of this package in it; those of other packages are left to their callbacks.
    """
    found = []
    for key in carried_records(checkpoint):
        with suppress(RecordError):
            found.append(find_structure(key))
    for structure in found:
        carry(module, structure)
    return found


def _load_lightning(cls: Any, path: str | Path, weights_only: bool, attach: Any, init_args: dict[str, Any]) -> Any:
    class Loaded(cls):  # type: ignore[misc]
        def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            attach(self, checkpoint)
            try:
                super().on_load_checkpoint(checkpoint)
            except KeyError as error:
                require_entry(error.args[0], checkpoint, cls)
                raise

    check_path(ckpt_path=path)
    if "://" not in str(path):  # Lightning also reads addresses
        check_file(ckpt_path=path)
    Loaded.__name__, Loaded.__qualname__ = cls.__name__, cls.__qualname__  # in messages of Python and torch
    source: Any
    if is_archive(path):
        version = {VERSION: _version(cls)}
        source = in_memory(archive_as_checkpoint(path, init_args) | version)
    else:
        source = readable(path, init_args, weights_only)
    source = of_class(source, path, cls, init_args, weights_only)
    module = Loaded.load_from_checkpoint(source, weights_only=weights_only, map_location="cpu", **init_args)
    module.__class__ = cls
    return module


def _check_adapters(module: nn.Module, record: Any, cls: type) -> None:
    """Refuse a module that was built without the adapters of a record; all else in the record is checked later."""
    parts = record.values() if isinstance(record, dict) else ()
    named = [name for part in parts if isinstance(part, list) for name in part]
    layers = {name for name, _ in module.named_modules()}
    if not additive_paths(module) and (missing := [name for name in map(str, named) if name not in layers]):
        raise RecordError(
            f"need {cls.__name__} built with the adapters that it was trained with, got one without, which lacks "
            f"{listed(missing)}: pass the argument that adds them, as in load_compressed({cls.__name__}, path, "
            "lora=True)"
        )


def _refused(error: RuntimeError, cls: type, path: str | Path, structures: Sequence[Structure]) -> ValueError | None:
    """The error of a state dict of another module, in a sentence; None for an error of other code."""
    found = difference(error)
    if structures:
        names = ", ".join(structure.key for structure in structures)
        return RecordError(
            f"need records that make the module of the state dict in {str(path)!r}, got others of {names}: "
            f"{found or shown(str(error))}; pass the class and the arguments that it was trained with"
        )
    if found is None:
        return None
    return ValueError(
        f"need the module of the state dict in {str(path)!r}, got {cls.__name__}: {found}; pass the class and the "
        "arguments that it was trained with"
    )


def _version(cls: type) -> str:
    """The version of the Lightning that ``cls`` is built on."""
    base = next(base for base in cls.__mro__ if "load_from_checkpoint" in vars(base))
    return str(import_module(base.__module__.partition(".")[0]).__version__)
