"""Structures: what a state dict cannot carry of a compressed module, carried by every checkpoint of it.

A method that attaches something to a module (activation quantizers) or changes its shapes (cut channels) states how to
record that in tensors and primitives, and how to attach it again. The record goes into the checkpoint under the
method's key whatever writes it, ``save_weights_only`` too, and is attached before the weights are loaded, in ``fit``,
``validate``, ``test`` and ``predict`` alike. Nothing in a file names code: keys are looked up, never executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

__all__ = ["Structure", "attach_structure", "carry", "copies", "narrow_structures"]

_STRUCTURES, _CARRIED = "compression_structures", "_carried_structures"


def _nothing(module: nn.Module, cut: Callable[[str, Tensor], Tensor]) -> None:
    return


@dataclass(frozen=True)
class Structure:
    """One kind of structure.

    Attributes:
        key: its name in a checkpoint.
        record: module -> dictionary of tensors and primitives; empty if there is nothing to carry.
        attach: module, record -> give the module what the record describes; whatever it had is replaced.
        narrow: module, cut -> channels will be cut out of its parameters; ``cut`` does that to a tensor of the shape of
            the parameter of a name. Nothing by default.
    """

    key: str
    record: Callable[[nn.Module], dict[str, Any]]
    attach: Callable[[nn.Module, dict[str, Any]], None]
    narrow: Callable[[nn.Module, Callable[[str, Tensor], Tensor]], None] = _nothing


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
    carried: dict[str, Structure] = vars(module).setdefault(_CARRIED, {})
    if structure.key in carried:
        return
    carried[structure.key] = structure
    # On the instance and not in a callback: callbacks neither see save_weights_only nor load before the weights.
    for hook, around in (("on_save_checkpoint", _save), ("on_load_checkpoint", _load)):
        object.__setattr__(module, hook, partial(around, module, structure, getattr(module, hook)))


def attach_structure(module: nn.Module, structure: Structure, checkpoint: dict[str, Any]) -> None:
    """Attach the structure that ``checkpoint`` carries, if it does; to be called before the weights are loaded."""
    record = checkpoint.get(_STRUCTURES, {}).get(structure.key)
    if record is not None:
        structure.attach(module, record)


def narrow_structures(module: nn.Module, cut: Callable[[str, Tensor], Tensor]) -> None:
    """Let what ``module`` carries follow a cut of its parameters that comes next; ``cut`` as in :class:`Structure`."""
    for structure in vars(module).get(_CARRIED, {}).values():
        structure.narrow(module, cut)


def copies(module: nn.Module) -> Iterator[nn.Module]:
    """Copies of ``module`` that callbacks of its Trainer keep in step with it: averages of its weights."""
    trainer = getattr(module, "_trainer", None)
    for callback in getattr(trainer, "callbacks", ()):
        average = getattr(callback, "_average_model", None)
        if average is not None:
            yield average.module if isinstance(average, AveragedModel) else average


def _save(
    module: nn.Module, structure: Structure, own: Callable[[dict[str, Any]], None], checkpoint: dict[str, Any]
) -> None:
    own(checkpoint)
    record = structure.record(module)
    if record:
        checkpoint.setdefault(_STRUCTURES, {})[structure.key] = record


def _load(
    module: nn.Module, structure: Structure, own: Callable[[dict[str, Any]], None], checkpoint: dict[str, Any]
) -> None:
    attach_structure(module, structure, checkpoint)
    own(checkpoint)
