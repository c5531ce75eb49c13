"""Layers: parts of the module that the user replaces, adds or begins to train in the middle of ``fit``."""

from __future__ import annotations

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
        self._holders = [held for part in parts for held in (part._modules, part._parameters)]
        self._held = [tuple(held.values()) for held in self._holders]
        self._frozen = {name: p for name, p in module.named_parameters() if not p.requires_grad}

    @property
    def changed(self) -> bool:
        """Whether anything is different now. Costs 0.1 ms for 500 submodules."""
        return bool(self.thawed) or any(
            len(now) != len(then) or any(one is not other for one, other in zip(now.values(), then, strict=True))
            for now, then in zip(self._holders, self._held, strict=True)
        )

    @property
    def thawed(self) -> list[str]:
        """Names of the parameters that were frozen and are trained now."""
        return [name for name, parameter in self._frozen.items() if parameter.requires_grad]
