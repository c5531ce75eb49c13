"""Zeros: channels that a run has left as zeros, cut out afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.carried import carry, narrow_structures
from lightning_compress.channels.criteria import members
from lightning_compress.channels.cutting.shapes import CHANNELS, dense_sizes
from lightning_compress.channels.cutting.surgery import narrow, remove_
from lightning_compress.channels.dependencies.trials import make_plan
from lightning_compress.channels.groups import Group, dropped
from lightning_compress.processes import is_sharded, unshard_

__all__ = ["remove_zero_channels"]


def remove_zero_channels(module: nn.Module, example_input: Any) -> int:
    """Cut out the channels that are zero, in every layer that shares them; what ``module`` computes stays the same.

    It is for runs that leave the channels in place: ``ChannelPruningCallback(remove=False)``, and strategies that spawn
    their processes or shard the parameters. A residual branch without channels goes as a whole; elsewhere one channel
    of each layer stays in any case. Checkpoints of a LightningModule carry the new shapes. Of quantized weights give
    the LightningModule that was trained, not a part of it: it knows their grids, which are cut too.

    Args:
        module: changed in place; the optimizers of a run that goes on are not. One that FSDP2 has sharded is gathered
            first and becomes an ordinary module that holds all of its weights: call it on every rank.
        example_input: what ``forward`` takes, on the device of the module: one argument, a tuple of arguments, or a
            dict of keyword arguments.

    Returns:
        how many channels were cut, those of a layer and of all that are tied to it counted once.

    Raises:
        ImportError: torch-pruning is not installed (extra ``channels``).
        ValueError: the module does not take the example, or cannot be traced, or weights are quantized in groups of
            which the cut would leave a part.

    Example::

        trainer = Trainer(strategy="ddp_spawn", callbacks=[ChannelPruningCallback(macs=0.5)])
        trainer.fit(module, data)
        remove_zero_channels(module, images)
        export(module, "model.onnx", images)
    """
    if is_sharded(module):
        unshard_(module)
    plan = make_plan(module, example_input)
    weights = dict(module.named_parameters())
    if any(bool(_zeros(group, weights).sum() == group.units - 1) for group in plan.groups):
        plan = make_plan(module, example_input, branches=True)
    removed = {group.name: _zeros(group, weights) for group in plan.groups}
    if not any(bool(units.any()) for units in removed.values()):
        return 0
    dense_sizes(module)  # remembered before they change
    gone = dropped([group for group in plan.groups if not group.takes_branch(removed)], removed)
    narrow_structures(module, lambda name, tensor: narrow(tensor, gone.get(name, {})))
    remove_(module, plan.groups, removed)
    if hasattr(module, "on_save_checkpoint"):
        carry(module, CHANNELS)
    return sum(int(removed[group.name].sum()) * group.width for group in plan.groups)


def _zeros(group: Group, weights: Mapping[str, Tensor]) -> Tensor:
    """``(units,)``: whether all entries of a unit are zero; one unit is spared unless the group has a branch."""
    there = torch.stack([member.weight.ne(0).any(1).cpu() for member in members(group, weights, {})]).any(0)
    if not there.any() and not group.branch:
        there[0] = True
    return ~there
