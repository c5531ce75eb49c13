"""Replacements: parameters that give way to others during ``fit``, and parameters that join the targets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from lightning_compress.lightnings import (
    DDPStrategy,
    LightningModule,
    ModelParallelStrategy,
    MultiProcessingLauncher,
    Strategy,
    rank_zero_warn,
)
from lightning_compress.messages import listed
from lightning_compress.targets import FROZEN, Selection, select
from lightning_compress.training.plans import announce, check_take_up

if TYPE_CHECKING:
    from lightning_compress.training.callback import WeightCompression

__all__ = ["follow_replacement", "replaces", "take_up"]


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


def take_up(
    methods: Sequence[WeightCompression], module: LightningModule, thawed: Sequence[str], added: Sequence[str]
) -> list[WeightCompression]:
    """Let the methods go on with layers that were replaced or added since the last batch, and with weights that thawed.

    Args:
        methods: the methods.
        module: the module.
        thawed: names of the parameters that were frozen and are trained now.
        added: names of the parameters that the module did not have.

    Returns:
        the methods that have begun at new targets.

    Raises:
        ValueError: a target was replaced or is gone, and its method cannot go on without it.
    """
    present = dict(module.named_parameters(remove_duplicate=False))
    changed = []
    for method in methods:
        joining = [name for name in thawed if method.skipped.get(name) == FROZEN]
        replaced = [name for name, target in method.targets.items() if present.get(name) is not target.parameter]
        wanted = select(module, method.include, method.exclude) if added else ()
        new = [target.name for target in wanted if target.name in added]
        if check_take_up(method, joining, replaced, new):
            announce(method, _retarget(method, module, joining))
            changed.append(method)
    return changed


def _retarget(method: WeightCompression, module: LightningModule, joining: Sequence[str]) -> Selection:
    """Let a method select its targets anew. It keeps its strength, and its state of the parameters that are the same.

    Args:
        method: its next call must be an update, if it is active.
        module: the module, in which parameters may have been replaced.
        joining: names of frozen parameters that are trained from now on.

    Returns:
        the new targets, at which the method has begun.

    Raises:
        ValueError: a target is gone.
    """
    method.joined = (*method.joined, *joining)
    old, strength, state = method.targets, method.strength, method.tensors()
    selection = method.select(module)
    if gone := old.keys() - {target.name for target in selection}:
        raise ValueError(
            f"need the weights that {type(method).__name__} compresses until fit ends, got a module without "
            f"{listed(sorted(gone))}: name them in exclude"
        )
    same = {
        target.name for target in selection if target.name in old and old[target.name].parameter is target.parameter
    }
    method.begin(selection)
    method.strength = strength
    method.load_tensors({kind: {n: t for n, t in named.items() if n in same} for kind, named in state.items()})
    return selection


def _obstacle(strategy: Strategy) -> str:
    if isinstance(strategy, ModelParallelStrategy):
        return "parameters that ModelParallelStrategy shards cannot change their shapes"
    if isinstance(strategy.launcher, MultiProcessingLauncher):
        return "strategies that spawn their processes return no smaller model"
    return ""
