"""Moves: operations that hand on values as they are, around which rounding may stand on either side.

A runtime computes an operation in integers where it finds ``dequantize -> operation -> quantize``. To round values that
lie on the grid already changes nothing; and rounding keeps the order of values, so that the maximum of rounded values
is the rounded maximum.
"""

from __future__ import annotations

from operator import getitem
from typing import Any

import torch
from torch.fx import GraphModule, Node

from lightning_compress.deploy.graph_passes import packet_of
from lightning_compress.deploy.graph_passes.rounding import Form, dequantized_form, quantized_form, round_after

__all__ = ["round_after_moves", "round_before_moves"]

_aten = torch.ops.aten
_MOVES = {
    _aten.alias,
    _aten.cat,
    _aten.clone,
    _aten.contiguous,
    _aten.expand,
    _aten.flatten,
    _aten.max_pool1d,
    _aten.max_pool2d,
    _aten.permute,
    _aten.pixel_shuffle,
    _aten.pixel_unshuffle,
    _aten.repeat,
    _aten.reshape,
    _aten.select,
    _aten.slice,
    _aten.squeeze,
    _aten.t,
    _aten.transpose,
    _aten.unflatten,
    _aten.unsqueeze,
    _aten.upsample_nearest1d,
    _aten.upsample_nearest2d,
    _aten.view,
}
_PARTS = {_aten.chunk, _aten.split, _aten.unbind}
_RECTIFIERS = {_aten.relu, _aten.relu_}


def round_before_moves(module: GraphModule) -> int:
    """Round the inputs of moves in place of their output, where only a quantize operation reads it: the same codes."""
    changed = 0
    for node in list(module.graph.nodes):
        form = quantized_form(node)
        pending = [] if form is None else [(node.args[0], node)]
        while form is not None and pending:
            value, reader = pending.pop()
            if _is_move(value) and set(value.users) == {reader}:
                pending += [(source, value) for source in _sources(value)]
            elif reader is not node and dequantized_form(value) != form:
                round_after(value, form, [reader])
                changed += 1
    return changed


def round_after_moves(module: GraphModule) -> int:
    """Round the output of a move, or of a ReLU, once more, where all its inputs lie on one grid."""
    forms: dict[Node, Form | None] = {}
    changed = 0
    for node in list(module.graph.nodes):
        forms[node] = dequantized_form(node)
        if _is_move(node) or packet_of(node) in _RECTIFIERS or _is_part(node):
            found = {forms[source] for source in _sources(node)}
            form = forms[node] = found.pop() if len(found) == 1 else None
            readers = [user for user in node.users if quantized_form(user) != form and user.op != "output"]
            if form is not None and readers:
                rounded = round_after(node, form, readers)
                forms[rounded] = form
                changed += 1
    return changed


def _is_move(node: Any) -> bool:
    """Whether all values that a node returns are values of its inputs, or zeros."""
    packet = packet_of(node)
    if packet in (_aten.dropout, _aten.dropout_):
        return not node.args[2]
    if packet is _aten.pad:
        given = dict(zip(("mode", "value"), node.args[2:], strict=False))
        return given.get("mode", "constant") == "constant" and not given.get("value")
    if packet is _aten.constant_pad_nd:
        return len(node.args) < 3 or not node.args[2]
    return packet in _MOVES


def _is_part(node: Any) -> bool:
    return node.target is getitem and packet_of(node.args[0]) in _PARTS


def _sources(node: Any) -> list[Node]:
    """The tensors whose values a node hands on."""
    first = node.args[0].args[0] if _is_part(node) else node.args[0]
    return [*first] if isinstance(first, list | tuple) else [first]
