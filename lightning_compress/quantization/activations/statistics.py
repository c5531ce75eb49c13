"""Statistics of batch normalization, which a run may freeze before its end."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

__all__ = ["FrozenStatistics"]


class FrozenStatistics:
    """The batch normalizations whose statistics are frozen, by evaluation mode, until :meth:`thaw`."""

    def __init__(self) -> None:
        self._frozen: list[nn.Module] = []

    def freeze(self, module: nn.Module) -> None:
        """Freeze those in ``module`` that train."""
        for submodule in module.modules():
            if isinstance(submodule, _BatchNorm) and submodule.training:
                submodule.eval()
                if submodule not in self._frozen:
                    self._frozen.append(submodule)

    def thaw(self) -> None:
        """Training is over, or was interrupted."""
        while self._frozen:
            self._frozen.pop().train()
