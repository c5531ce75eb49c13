"""Replacements: parameters that give way to parameters of another shape during ``fit``."""

from __future__ import annotations

import sys

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

__all__ = ["fixed_shapes", "follow_replacement"]


def fixed_shapes(strategy: Strategy) -> str:
    """The reason why parameters cannot be replaced by others during ``fit``; empty if they can."""
    if isinstance(strategy, ModelParallelStrategy):
        return "parameters that ModelParallelStrategy shards cannot change their shapes"
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        return "strategies that spawn their processes return no smaller model"
    return ""


def follow_replacement(strategy: Strategy, module: LightningModule) -> None:
    """Let DDP and compiled code continue with the new parameters of ``module``."""
    if isinstance(strategy, DDPStrategy):
        module.zero_grad(set_to_none=True)  # gradients may be views of the buckets that are given up
        strategy.model = module
        strategy.configure_ddp()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # each new shape would count as one recompilation, and these are limited
