"""Pools: means over the space of a map, in the form for which runtimes of devices have kernels."""

from __future__ import annotations

import torch
from torch.fx import GraphModule

__all__ = ["average_without_padding", "keep_space"]

_aten = torch.ops.aten


def keep_space(module: GraphModule) -> int:
    """Let means over the last two of four dimensions keep these, and drop them then: XNNPACK pools such means."""
    changed = 0
    for node in list(module.graph.nodes):
        if node.target is not _aten.mean.dim or (len(node.args) > 2 and node.args[2]):
            continue
        shape = node.args[0].meta["val"].shape
        if len(shape) == 4 and sorted(axis % 4 for axis in node.args[1] or ()) == [2, 3]:
            with module.graph.inserting_after(node):
                flat = module.graph.call_function(_aten.view.default, (node, [-1, int(shape[1])]))
            node.replace_all_uses_with(flat, delete_user_cb=lambda user, mine=flat: user is not mine)
            node.args = (node.args[0], [2, 3], True)
            changed += 1
    return changed


def average_without_padding(module: GraphModule) -> int:
    """Say that average pools without padding leave padding out of the mean: XNNPACK takes no others."""
    changed = 0
    for node in module.graph.nodes:
        if node.target is _aten.avg_pool2d.default:
            args = [*node.args, *([], [0, 0], False, True)[len(node.args) - 2 :]]
            if args[5] and not any(args[3]):
                node.args = (*args[:5], False, *args[6:])
                changed += 1
    return changed
