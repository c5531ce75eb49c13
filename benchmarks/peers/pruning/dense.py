"""No pruning."""

from __future__ import annotations

from torch import nn

from benchmarks.peers.recipe import Run, plain

__all__ = ["plain", "train"]


def train(run: Run, sparsity: float) -> nn.Module:
    """The dense network."""
    return plain(run)
