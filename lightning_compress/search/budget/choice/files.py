"""Files: the bytes of the archive of a module, with other weights in the place of some of its own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lightning_compress.deploy.writers.archive import size_of
from lightning_compress.processes import from_rank_zero
from lightning_compress.targets import Target

__all__ = ["archive_size", "size_without"]


def archive_size(module: nn.Module, targets: Mapping[str, Target], weights: Mapping[str, Tensor]) -> int:
    """Bytes of the ``.lcz`` file of a module with these values of some targets; a collective.

    Args:
        module: its state dict and its records are the content of the file.
        targets: name -> parameter of the module.
        weights: name of a target -> its values. A target that is not named has its own.

    Returns:
        the length of the file, the same on all processes.

    >>> module = nn.Linear(100, 100, bias=False)
    >>> with torch.no_grad():
    ...     _ = module.weight.zero_()
    >>> archive_size(module, {}, {})
    50
    """
    # A tied weight is one tensor under all its names, and is stored once.
    tensors = {alias: weight for name, weight in weights.items() for alias in targets[name].aliases}
    return from_rank_zero(size_of(module, tensors))


def size_without(module: nn.Module, targets: Mapping[str, Target]) -> int:
    """Bytes of all but the targets, each of which takes the few bytes of a tensor of zeros; a collective."""
    zeros = {name: torch.zeros_like(target.parameter) for name, target in targets.items()}
    return archive_size(module, targets, zeros)
