"""Replacements: parameters that give way to parameters of another shape during ``fit``."""

from __future__ import annotations

import sys

import torch

from lightning_compress.lightnings import (
    DDPStrategy,
    LightningModule,
    ModelParallelStrategy,
    MultiProcessingLauncher,
    Strategy,
    rank_zero_warn,
)

__all__ = ["follow_replacement", "replaces"]


def replaces(strategy: Strategy, method: object, otherwise: str, function: str) -> bool:
    """Whether parameters can be replaced by others during ``fit``; warns of it if they cannot.

    Args:
        strategy: the strategy of the Trainer.
        method: the method that wants to replace them.
        otherwise: the state of the model if they stay, ``"layers stay whole"``.
        function: name of the function that replaces them after ``fit``.
    """
    obstacle = _obstacle(strategy)
    if obstacle:
        rank_zero_warn(
            f"{type(method).__name__}: {otherwise}, because {obstacle}; call {function} after fit, or use "
            "strategy='ddp' to have it done during fit."
        )
    return not obstacle


def follow_replacement(strategy: Strategy, module: LightningModule) -> None:
    """Let DDP and compiled code continue with the new parameters of ``module``."""
    if isinstance(strategy, DDPStrategy):
        module.zero_grad(set_to_none=True)  # gradients may be views of the buckets that are given up
        strategy.model = module
        strategy.configure_ddp()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()  # each new shape would count as one recompilation, and these are limited


def _obstacle(strategy: Strategy) -> str:
    if isinstance(strategy, ModelParallelStrategy):
        return "parameters that ModelParallelStrategy shards cannot change their shapes"
    if isinstance(strategy.launcher, MultiProcessingLauncher):
        return "strategies that spawn their processes return no smaller model"
    return ""
