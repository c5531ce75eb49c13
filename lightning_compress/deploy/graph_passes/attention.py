"""Attention: scaled dot products with a dimension for heads, which some runtimes need."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

__all__ = ["give_heads"]

_ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
_UNSQUEEZE, _SQUEEZE = torch.ops.aten.unsqueeze.default, torch.ops.aten.squeeze.dim
_DIMENSIONS = 4  # batch, heads, positions, features


def give_heads(module: GraphModule) -> int:
    """Give the inputs of each scaled dot product four dimensions, and take those away from its output that are new.

    The batch of inputs of three dimensions becomes the heads of one sample. Outputs are the same up to rounding errors:
    torch sums in another order where there are heads.
    """
    changed = 0
    for node in list(module.graph.nodes):
        if node.target is _ATTENTION and (missing := _DIMENSIONS - node.meta["val"].ndim) > 0:
            _widen(node, missing)
            changed += 1
    return changed


def _widen(node: Node, missing: int) -> None:
    graph, readers, entries = node.graph, list(node.users), node.meta["val"].ndim
    with graph.inserting_before(node):
        node.args = tuple(_widened(value, entries, missing) for value in node.args)
        node.kwargs = {name: _widened(value, entries, missing) for name, value in node.kwargs.items()}
    last = node
    for _ in range(missing):
        with graph.inserting_after(last):
            last = graph.call_function(_SQUEEZE, (last, 0))
    last.meta = dict(node.meta)
    for reader in readers:
        reader.replace_input_with(node, last)


def _widened(value: Any, entries: int, missing: int) -> Any:
    """A tensor of so many dimensions, with new ones in front; anything else as it is, such as a mask of two."""
    if isinstance(value, Node) and value.meta["val"].ndim == entries:
        for _ in range(missing):
            value = value.graph.call_function(_UNSQUEEZE, (value, 0))
    return value
