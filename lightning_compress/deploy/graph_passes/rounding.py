"""Rounding: the quantize and dequantize operations of activations, and the type of their codes."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

__all__ = [
    "Form",
    "dequantize_for_each",
    "dequantized_form",
    "holds_codes",
    "is_dequantize",
    "is_quantize",
    "quantized_form",
    "round_after",
    "sign_codes",
    "spell_out_round",
]

Form: TypeAlias = tuple[float, int, int, int, torch.dtype]
"""Scale, zero point, lowest and highest code, and type of the codes."""

_ops = torch.ops.quantized_decomposed
_QUANTIZE, _DEQUANTIZE = _ops.quantize_per_tensor.default, _ops.dequantize_per_tensor.default


def is_quantize(node: Any) -> bool:
    """Whether a node rounds a tensor to codes."""
    return isinstance(node, Node) and node.target is _QUANTIZE


def is_dequantize(node: Any) -> bool:
    """Whether a node gives the values of codes."""
    return isinstance(node, Node) and node.target is _DEQUANTIZE


def holds_codes(graph: Graph) -> bool:
    """Whether a graph has weights or activations on grids."""
    kinds = (_QUANTIZE, _DEQUANTIZE, _ops.dequantize_per_channel.default)
    return any(node.target in kinds for node in graph.nodes)


def quantized_form(node: Any) -> Form | None:
    """The form of the codes that a node computes; None if it computes none."""
    return tuple(node.args[1:6]) if is_quantize(node) else None


def dequantized_form(node: Any) -> Form | None:
    """The form of the codes whose values a node computes; None if it is not known."""
    return tuple(node.args[1:6]) if is_dequantize(node) else None


def round_after(node: Node, form: Form, readers: list[Node]) -> Node:
    """Let ``readers`` read the rounded output of ``node``; returns the dequantize node.

    Args:
        node: computes a float tensor.
        form: of the codes.
        readers: some of its users.
    """
    graph = node.graph
    with graph.inserting_after(node):
        quantize = graph.call_function(_QUANTIZE, (node, *form))
    with graph.inserting_after(quantize):
        dequantize = graph.call_function(_DEQUANTIZE, (quantize, *form))
    dequantize.meta = dict(node.meta)  # the shape, for passes that come later
    for reader in readers:
        reader.replace_input_with(node, dequantize)
    return dequantize


def sign_codes(module: GraphModule) -> int:
    """Store codes of activations as int8 in place of uint8: every code and zero point less 128, the same values."""
    changed = 0
    for node in module.graph.nodes:
        form = quantized_form(node) or dequantized_form(node)
        if form is not None and form[4] is torch.uint8:
            scale, zero_point, low, high, _ = form
            node.args = (node.args[0], scale, zero_point - 128, low - 128, high - 128, torch.int8)
            changed += 1
    return changed


def dequantize_for_each(module: GraphModule) -> int:
    """Give every reader of dequantized codes a dequantize operation of its own.

    XNNPACK hands the codes themselves to all readers of the values, if one of them computes in integers.
    """
    changed = 0
    for node in list(module.graph.nodes):
        for reader in list(node.users)[1:] if is_dequantize(node) else ():
            with module.graph.inserting_before(reader):
                copy = module.graph.node_copy(node)
            reader.replace_input_with(node, copy)
            changed += 1
    return changed


def spell_out_round(module: GraphModule) -> int:
    """Round to integers by operations that LiteRT's reference kernels have, which lack this one; bits stay the same."""
    nodes = [node for node in module.graph.nodes if node.target is torch.ops.aten.round.default]
    for node in nodes:
        with module.graph.inserting_after(node):
            spelled = module.graph.call_function(_to_even, node.args)
        node.replace_all_uses_with(spelled)
        module.graph.erase_node(node)
    return len(nodes)


def _to_even(x: Tensor) -> Tensor:
    """``x.round()``: of two integers as near, the even one. Each step is exact."""
    below = x.floor()
    rest = x - below
    odd = below - 2.0 * (0.5 * below).floor()
    up = torch.where(rest == 0.5, odd, torch.where(rest > 0.5, torch.ones_like(x), torch.zeros_like(x)))
    return below + up
