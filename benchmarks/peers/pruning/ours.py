"""PruningCallback with its defaults."""

from __future__ import annotations

from torch import nn

from benchmarks.peers.recipe import Run
from benchmarks.peers.trainers import fit, plain

__all__ = ["plain", "train"]


def train(run: Run, sparsity: float) -> nn.Module:
    """Pruned to ``sparsity``."""
    # user code
    from lightning_compress import PruningCallback

    callbacks = [PruningCallback(sparsity)]
    # end
    return fit(run, callbacks).model
