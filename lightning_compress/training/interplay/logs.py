"""Logs: the numbers of the methods among the metrics of the module."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_compress.lightnings import LightningModule

if TYPE_CHECKING:
    from lightning_compress.training.callback import WeightCompression

__all__ = ["MetricLog"]


class MetricLog:
    """Logs the metrics of methods after each of their updates, and once in every epoch.

    Args:
        module: logs them.
        methods: all methods of the run.
    """

    def __init__(self, module: LightningModule, methods: Sequence[WeightCompression]) -> None:
        self._module = module
        self._methods = methods
        self._due: Sequence[WeightCompression] = ()
        self._epoch = -1

    def due(self, methods: Sequence[WeightCompression]) -> None:
        """Let the next :meth:`write` log the metrics of these methods."""
        self._due = methods

    def write(self, epoch: int) -> None:
        """Log the metrics that are due; those of all methods in a new epoch, with which Lightning forgets values."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._due = self._methods
        for method in self._due:
            for name, value in method.metrics().items():
                self._module.log(_key(name, method), value)
        self._due = ()


def _key(name: str, method: WeightCompression) -> str:
    """``compression/sparsity``; followed by the patterns where a callback does not compress the whole model."""
    return "/".join(["compression", name, *([] if method.include == ("*",) else [",".join(method.include)])])
