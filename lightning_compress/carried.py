"""Carried records: parts of a compressed module that its state dict cannot hold, carried by every checkpoint of it.

A method that attaches objects to a module (activation quantizers) or changes its shapes (removed channels) defines a
:class:`Structure`: it records them in tensors and primitives, and attaches them again. The record goes into every
checkpoint, ``save_weights_only`` too. It is attached before the weights are loaded, in ``fit``, ``validate``, ``test``
and ``predict`` alike.

A method of this package keeps its structure where a loader finds it without a list: the key is the name of the room,
and ``<room>/records.py`` holds the structure under that name in capitals, as ``QUANTIZATION`` in
``quantization/records.py``. A file holds keys and no code: a key is looked up among the rooms, never executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from lightning_compress.schemas import refuse

__all__ = [
    "ATTACHMENTS",
    "LAYERS",
    "SHAPES",
    "Shapes",
    "Structure",
    "announce_removal",
    "attach_structure",
    "carried_records",
    "carried_structures",
    "carry",
    "copies",
    "record_structures",
    "shapes_in",
]

LAYERS, SHAPES, ATTACHMENTS = 10, 20, 30
"""The order in which a loader attaches records: a record may name layers that an earlier one made."""

_STRUCTURES, _CARRIED = "compression_structures", "_carried_structures"


Shapes: TypeAlias = Mapping[str, list[int]]
"""Name in the state dict of a file -> shape, of tensors with memory of their own; empty for a file without one."""


def _nothing(module: nn.Module, remove: Callable[[str, Tensor], Tensor]) -> None:
    return


def _finished(module: nn.Module, record: dict[str, Any], shapes: Shapes) -> None:
    return


def _packed(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    return


def _trust(module: nn.Module, record: dict[str, Any], shapes: Shapes) -> None:
    return


@dataclass(frozen=True)
class Structure:
    """One kind of carried record.

    Attributes:
        key: name of the record in a checkpoint; for a method of this package the name of its room.
        record: module -> dictionary of tensors and primitives; empty if there is nothing to carry.
        attach: module, record -> None. Attaches the recorded objects to the module, in place of those that it has.
        on_removal: module, remove -> None. Called before channels are removed; ``remove(name, tensor)`` removes them
            from a tensor of the shape of the named parameter. Nothing by default.
        check: module, record, shapes -> None. Called before ``attach`` with the shapes of the tensors in the same file:
            raises :class:`~lightning_compress.schemas.RecordError` for a record that ``record`` would not have made of
            such a module. Everything that a record asks memory for must be in these shapes. Trusts by default.
        alters: record -> whether the module computes something else than one of its class with the same state dict. By
            default every record that is not empty does.
        finish: module, record, shapes -> None. Called by ``load_compressed`` once the weights are loaded. Nothing by
            default.
        pack: module, checkpoint -> None. Called when all else is in a checkpoint that is to be written. Nothing by
            default.
        order: place in the order of attachment: ``LAYERS`` are made before ``SHAPES`` change, both before
            ``ATTACHMENTS``.
    """

    key: str
    record: Callable[[nn.Module], dict[str, Any]]
    attach: Callable[[nn.Module, dict[str, Any]], None]
    on_removal: Callable[[nn.Module, Callable[[str, Tensor], Tensor]], None] = _nothing
    order: int = ATTACHMENTS
    check: Callable[[nn.Module, dict[str, Any], Shapes], None] = _trust
    alters: Callable[[dict[str, Any]], bool] = bool
    finish: Callable[[nn.Module, dict[str, Any], Shapes], None] = _finished
    pack: Callable[[nn.Module, dict[str, Any]], None] = _packed


def carry(module: nn.Module, structure: Structure) -> None:
    """Let every checkpoint of the LightningModule ``module`` carry ``structure``, from now on.

    >>> class Plain(nn.Module):
    ...     def on_save_checkpoint(self, checkpoint): ...
    ...     def on_load_checkpoint(self, checkpoint): ...
    >>> module, checkpoint = Plain(), {}
    >>> carry(module, Structure("name", record=lambda m: {"mode": m.training}, attach=lambda m, r: m.train(r["mode"])))
    >>> _ = module.eval(); module.on_save_checkpoint(checkpoint); checkpoint
    {'compression_structures': {'name': {'mode': False}}}
    >>> _ = module.train(); module.on_load_checkpoint(checkpoint); module.training
    False
    """
    if _CARRIED not in vars(module):
        vars(module)[_CARRIED] = {}
        # On the instance and not in a callback: callbacks neither see save_weights_only nor load before the weights.
        for hook, around in (("on_save_checkpoint", _save), ("on_load_checkpoint", _load)):
            object.__setattr__(module, hook, partial(around, module, getattr(module, hook)))
    vars(module)[_CARRIED].setdefault(structure.key, structure)


def attach_structure(module: nn.Module, structure: Structure, checkpoint: Mapping[str, Any]) -> None:
    """Attach the record of a structure, if ``checkpoint`` carries one; to be called before the weights are loaded.

    Raises:
        RecordError: the record is not one that the structure would have made of this module.
    """
    records = carried_records(checkpoint)
    if structure.key not in records:
        return
    record = records[structure.key]
    if not isinstance(record, dict):
        raise refuse(structure.key, "a dictionary", record)
    structure.check(module, record, shapes_in(checkpoint))
    structure.attach(module, record)


def carried_records(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Key -> record, of all records in ``checkpoint``.

    Raises:
        RecordError: the checkpoint has another value in their place.
    """
    records = checkpoint.get(_STRUCTURES, {})
    if not isinstance(records, dict):
        raise refuse(_STRUCTURES, "a dictionary", records)
    return records


def record_structures(module: nn.Module, structures: Iterable[Structure]) -> dict[str, Any]:
    """The part of a checkpoint that carries the records of ``structures``; empty where there is nothing to carry."""
    records = {structure.key: structure.record(module) for structure in structures}
    filled = {key: record for key, record in records.items() if record}
    return {_STRUCTURES: filled} if filled else {}


def carried_structures(module: nn.Module) -> list[Structure]:
    """The structures that checkpoints of ``module`` carry, in the order of attachment."""
    structures: dict[str, Structure] = vars(module).get(_CARRIED, {})
    return sorted(structures.values(), key=lambda structure: structure.order)


def shapes_in(checkpoint: Mapping[str, Any]) -> Shapes:
    """The shapes in the state dict of a checkpoint, of tensors with memory for all their elements.

    An expanded tensor may have any size in a small file, and a copy of it would take that memory.
    """
    tensors = {name: t for name, t in checkpoint.get("state_dict", {}).items() if isinstance(t, Tensor)}
    return {name: list(t.shape) for name, t in tensors.items() if type(t) is not Tensor or 0 not in t.stride()}


def announce_removal(module: nn.Module, remove: Callable[[str, Tensor], Tensor]) -> None:
    """Adapt the structures of ``module`` to a removal of channels that comes next; see :class:`Structure`."""
    for structure in carried_structures(module):
        structure.on_removal(module, remove)


def copies(module: nn.Module) -> Iterator[nn.Module]:
    """Copies of ``module`` that callbacks of its Trainer keep in step with it: averages of its weights."""
    trainer = getattr(module, "_trainer", None)
    for callback in getattr(trainer, "callbacks", ()):
        average = getattr(callback, "_average_model", None)
        if average is not None:
            yield average.module if isinstance(average, AveragedModel) else average


def _save(module: nn.Module, own: Callable[[dict[str, Any]], None], checkpoint: dict[str, Any]) -> None:
    own(checkpoint)
    checkpoint.update(record_structures(module, carried_structures(module)))
    for structure in carried_structures(module):
        structure.pack(module, checkpoint)


def _load(module: nn.Module, own: Callable[[dict[str, Any]], None], checkpoint: dict[str, Any]) -> None:
    for structure in carried_structures(module):
        attach_structure(module, structure, checkpoint)
    own(checkpoint)
