"""Layers: parts of the module that the user replaces, adds or begins to train in the middle of ``fit``."""

from __future__ import annotations

from itertools import chain
from operator import is_
from typing import Any

from torch import nn

from lightning_compress.processes import is_sharded

__all__ = ["LayerWatch"]


class LayerWatch:
    """Notices that a module has other submodules or parameters than before, or trains a frozen one.

    FSDP2 exchanges parameters on its own in every pass: in a sharded module, only frozen parameters are watched.

    Args:
        module: as it is now.
    """

    def __init__(self, module: nn.Module) -> None:
        parts = () if is_sharded(module) else module.modules()
        self._holders: list[dict[str, Any]] = [held for part in parts for held in (part._modules, part._parameters)]
        self._sizes = list(map(len, self._holders))
        self._held = list(chain.from_iterable(map(dict.values, self._holders)))
        self._module, self._names = module, {name for name, _ in module.named_parameters()}
        self._frozen = {name: p for name, p in module.named_parameters() if not p.requires_grad}

    @property
    def changed(self) -> bool:
        """Whether anything is different now. Costs 0.1 ms for 500 submodules."""
        sizes, now = map(len, self._holders), chain.from_iterable(map(dict.values, self._holders))
        return bool(self.thawed) or list(sizes) != self._sizes or not all(map(is_, now, self._held))

    @property
    def added(self) -> list[str]:
        """Names of the parameters that the module did not have."""
        return [name for name, _ in self._module.named_parameters() if name not in self._names]

    @property
    def thawed(self) -> list[str]:
        """Names of the parameters that were frozen and are trained now."""
        return [name for name, parameter in self._frozen.items() if parameter.requires_grad]
