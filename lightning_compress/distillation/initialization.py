"""Initialization: a student that starts from layers of its teacher."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_compress.arguments import check_module, check_names
from lightning_compress.messages import listed

__all__ = ["initialize"]


def initialize(student: nn.Module, teacher: nn.Module, layers: Mapping[str, str]) -> None:
    """Copy weights and buffers of the teacher's layers into the student's, before training.

    Each entry of a student's layer is copied from the entry of the same name in the teacher's. The teacher's layer may
    hold more entries: a stage of one block starts from the first block of a stage of three.

    Args:
        student: the module to write to; it is unchanged if any layer does not fit.
        teacher: the module to read from.
        layers: name of the student's layer -> name of the teacher's layer; the empty name is the whole module, as in
            ``named_modules()``.

    Raises:
        TypeError: ``layers`` is no mapping of names, or ``student`` or ``teacher`` is no module.
        ValueError: a layer does not exist, or an entry is missing or of another shape in the teacher's.

    Paper: Sanh et al., "DistilBERT, a distilled version of BERT", https://arxiv.org/abs/1910.01108 (2019).

    >>> teacher = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> student = nn.Sequential(nn.Linear(2, 2))
    >>> initialize(student, teacher, {"0": "1"})
    >>> torch.equal(student[0].weight, teacher[1].weight)
    True
    """
    check_module(student=student, teacher=teacher)
    check_names("{student's layer: teacher's layer}", layers=layers)
    pairs = [pair for mine, theirs in layers.items() for pair in _pairs(student, mine, teacher, theirs)]
    with torch.no_grad():
        for own, given in pairs:
            own.copy_(given)


def _pairs(student: nn.Module, mine: str, teacher: nn.Module, theirs: str) -> list[tuple[Tensor, Tensor]]:
    """(student's tensor, teacher's tensor) for each entry of the student's layer."""
    own = _layer(student, mine, "student").state_dict()
    given = _layer(teacher, theirs, "teacher").state_dict()
    for name, tensor in own.items():
        found = tuple(given[name].shape) if name in given else "none"
        if found != tuple(tensor.shape):
            raise ValueError(
                f"need {name!r} of shape {tuple(tensor.shape)} in the teacher's layer {theirs!r} to initialize the "
                f"student's {mine!r}, got {found}: name the layers that have equal shapes"
            )
    return [(tensor, given[name]) for name, tensor in own.items()]


def _layer(module: nn.Module, name: str, whose: str) -> nn.Module:
    names = [known for known, _ in module.named_modules()]
    if name not in names:
        raise ValueError(
            f"need initialize to name layers, got {name!r}, which the {whose} does not have; it has: "
            f"{listed(names[1:])}"
        )
    return module.get_submodule(name)
