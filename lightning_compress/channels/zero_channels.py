"""Zero channels: removal, after ``fit``, of the channels that a run left as zeros."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.arguments import check_module
from lightning_compress.carried import announce_removal, carry
from lightning_compress.channels.criteria import members
from lightning_compress.channels.dependencies.removable import find_removable
from lightning_compress.channels.groups import Group, removed_entries
from lightning_compress.channels.removal.shapes import CHANNELS, dense_sizes
from lightning_compress.channels.removal.surgery import narrow, remove_units_
from lightning_compress.processes import is_sharded, unshard_

__all__ = ["remove_zero_channels"]


def remove_zero_channels(module: nn.Module, example_input: Any) -> int:
    """Remove the channels that are zero in every layer they belong to; the module computes the same as before.

    Use it after runs that leave the channels in place: ``ChannelPruningCallback(remove=False)``, and strategies that
    spawn their processes or shard the parameters. A residual branch without channels is removed whole; every other
    layer keeps at least one channel. Checkpoints of a LightningModule carry the new shapes. If weights are quantized,
    pass the LightningModule that was trained, not a submodule: it holds the grids, which are narrowed too.

    Args:
        module: changed in place; its optimizers are not. A module that FSDP2 has sharded is gathered first and becomes
            an ordinary module that holds all of its weights: call the function on every rank.
        example_input: input of ``forward``, on the device of the module: a tensor, a tuple of positional or a mapping
            of keyword arguments.

    Returns:
        the number of removed channels; coupled channels count once.

    Raises:
        ImportError: torch-pruning is not installed (extra ``channels``).
        ValueError: the module does not take the example or cannot be traced, or the removal would leave incomplete
            groups of quantized weights.

    Example::

        trainer = Trainer(strategy="ddp_spawn", callbacks=[ChannelPruningCallback(macs=0.5)])
        trainer.fit(module, data)
        remove_zero_channels(module, images)
        export(module, "model.onnx", images)
    """
    check_module(module=module)
    if is_sharded(module):
        unshard_(module)
    groups = find_removable(module, example_input).groups
    weights = dict(module.named_parameters())
    if any(bool(_zeros(group, weights).sum() == group.units - 1) for group in groups):
        groups = find_removable(module, example_input, remove_blocks=True).groups
    removed = {group.name: _zeros(group, weights) for group in groups}
    if not any(bool(units.any()) for units in removed.values()):
        return 0
    dense_sizes(module)  # recorded before they change
    entries = removed_entries([group for group in groups if not group.removes_branch(removed)], removed)
    announce_removal(module, lambda name, tensor: narrow(tensor, entries.get(name, {})))
    remove_units_(module, groups, removed)
    if hasattr(module, "on_save_checkpoint"):
        carry(module, CHANNELS)
    return sum(int(removed[group.name].sum()) * group.width for group in groups)


def _zeros(group: Group, weights: Mapping[str, Tensor]) -> Tensor:
    """``(units,)``: whether all entries of a unit are zero; one unit is kept unless the group has a residual branch."""
    kept = torch.stack([member.weight.ne(0).any(1).cpu() for member in members(group, weights, {})]).any(0)
    if not kept.any() and not group.branch:
        kept[0] = True
    return ~kept
