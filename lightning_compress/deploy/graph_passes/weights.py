"""Weights: the layers that a runtime computes in integers, and the constants of all others."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from lightning_compress.deploy.graph_passes import packet_of
from lightning_compress.deploy.graph_passes.rounding import is_dequantize, is_quantize

__all__ = [
    "REMEDIES",
    "float_layers",
    "fold_constants",
    "reads_and_writes_codes",
    "round_weights",
    "unrounded_ends",
    "widen_codes",
]

_INPUTS, _OUTPUTS = "nothing quantizes their inputs", "nothing quantizes their outputs"
_WEIGHTS = "their weights are not quantized with one scale for each output"
_ACTIVATIONS = "products of two activations, which no quantizer reaches"
_SHIFTED = "their weights have zero points other than 0"

REMEDIES = dict.fromkeys(
    (_INPUTS, _OUTPUTS, _SHIFTED),
    "train with QATCallback(profile=profiles.Mobile()), and with modules such as nn.ReLU() in place of F.relu, whose "
    "outputs quantizers reach",
)
"""Reason why a layer stays float -> what helps."""

_aten = torch.ops.aten
_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_channel.default
_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_channel.default
_LAYERS = {_aten.linear, _aten.conv1d, _aten.conv2d}
_CONVOLUTIONS = {_aten.conv3d, _aten.conv_transpose1d, _aten.conv_transpose2d, _aten.conv_transpose3d}
_RECURRENT = {_aten.gru, _aten.lstm, _aten.rnn_relu, _aten.rnn_tanh}
_PRODUCTS = {_aten.baddbmm, _aten.bmm, _aten.matmul, _aten.scaled_dot_product_attention}
_RECTIFIERS = {_aten.relu, _aten.relu_, _aten.hardtanh, _aten.hardtanh_, _aten.relu6, _aten.relu6_}
_CLAMPS = {*_RECTIFIERS, _aten.clamp}


def float_layers(module: GraphModule) -> dict[str, str]:
    """Name of each layer, and product of activations, that is not computed in integers -> the reason.

    Integers need a weight with one scale for each channel and no zero point; its input and its output, after a ReLU,
    have to be rounded.
    """
    kinds = _LAYERS | _CONVOLUTIONS | _RECURRENT | _PRODUCTS
    layers = [node for node in module.graph.nodes if packet_of(node) in kinds]
    return {_name(node): reason for node in layers if (reason := _reason(node))}


def unrounded_ends(module: GraphModule) -> tuple[str, ...]:
    """Names of the last layers with integer weights and rounded inputs, if the output of none of them is rounded."""
    layers = [node for node in module.graph.nodes if packet_of(node) in _LAYERS and is_dequantize(node.args[0])]
    integer = {node for node in layers if getattr(node.args[1], "target", None) is _DEQUANTIZE}
    before: set[Node] = set()  # those that an integer layer reads, directly or not
    for node in reversed(module.graph.nodes):
        if node in before or node in integer:
            before.update(node.all_input_nodes)
    ends = [node for node in layers if node in integer - before]
    return () if any(map(_is_rounded, ends)) else tuple(map(_name, ends))


def fold_constants(module: GraphModule) -> int:
    """Compute at once the values that depend on no input; weights of integer layers stay codes."""
    values: dict[Node, Tensor] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            values[node] = _attribute(module, node)
        elif node.op == "call_function" and node.all_input_nodes and all(n in values for n in node.all_input_nodes):
            kept = node.target is _DEQUANTIZE and all(_is_integer(user) for user in node.users)
            value = None if kept else node.target(*map_arg(node.args, values.get), **map_arg(node.kwargs, values.get))
            if isinstance(value, Tensor):
                values[node] = value
    folded = [node for node in values if node.op != "get_attr" and any(user not in values for user in node.users)]
    for node in folded:
        name = f"folded_{node.name}"
        module.register_buffer(name, values[node].detach().clone())
        with module.graph.inserting_before(node):
            constant = module.graph.get_attr(name)
        node.replace_all_uses_with(constant, propagate_meta=True)
    return len(folded)


def widen_codes(module: GraphModule) -> int:
    """Say that the codes of weights are any int8: runtimes take a range of four bits for another kind of storage."""
    changed = 0
    for node in module.graph.nodes:
        if node.target is _DEQUANTIZE:
            node.args = (*node.args[:4], -128, 127, *node.args[6:])
            changed += 1
    return changed


def round_weights(module: GraphModule) -> int:
    """Quantize the float values of weights in place of storing their codes: LiteRT takes codes from no other place."""
    changed = 0
    for node in list(module.graph.nodes):
        if node.target is _DEQUANTIZE and node.args[0].op == "get_attr":
            codes, scale = (_attribute(module, value) for value in node.args[:2])
            name = f"values_{node.name}"
            module.register_buffer(name, codes * scale.view(-1, *[1] * (codes.ndim - 1)))
            with module.graph.inserting_before(node):
                values = module.graph.get_attr(name)
                rounded = module.graph.call_function(_QUANTIZE, (values, *node.args[1:]))
            node.args = (rounded, *node.args[1:])
            changed += 1
    return changed


def reads_and_writes_codes(node: Node) -> bool:
    """Whether the first input of a node is rounded, and its output, after a ReLU."""
    return is_dequantize(node.args[0]) and _is_rounded(node, _RECTIFIERS)


def _is_integer(node: Node) -> bool:
    return packet_of(node) in _LAYERS and not _reason(node)


def _reason(node: Node) -> str:
    """Why a layer is not computed in integers; empty if it is."""
    if packet_of(node) in _CONVOLUTIONS:
        return "transposed and 3-D convolutions have no integer kernel"
    if packet_of(node) in _RECURRENT:
        return "recurrent layers have no integer kernel"
    if packet_of(node) in _PRODUCTS:
        return _ACTIVATIONS if _is_computed_from_inputs(node.args[1]) else _WEIGHTS
    weight: Any = node.args[1]
    if weight.target is not _DEQUANTIZE:
        return _WEIGHTS
    if _attribute(node.graph.owning_module, weight.args[2]).any():
        return _SHIFTED
    if not is_dequantize(node.args[0]):
        return _INPUTS
    return "" if _is_rounded(node, _RECTIFIERS) else _OUTPUTS


def _is_computed_from_inputs(node: Any) -> bool:
    pending, seen = [node], {node}
    while pending:
        node = pending.pop()
        if node.op == "placeholder":
            return True
        pending += [source for source in node.all_input_nodes if source not in seen]
        seen.update(pending)
    return False


def _is_rounded(node: Node, between: Set[Any] = frozenset(_CLAMPS)) -> bool:
    """Whether all that reads a node is a quantize operation, after some of the operations in ``between``."""
    reader = _sole_reader(node)
    while packet_of(reader) in between:
        reader = _sole_reader(reader)
    return is_quantize(reader)


def _sole_reader(node: Any) -> Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _attribute(module: Any, node: Any) -> Tensor:
    owner, _, name = node.target.rpartition(".")
    tensor: Tensor = getattr(module.get_submodule(owner), name)
    return tensor


def _name(node: Node) -> str:
    """Name of the module that computes a node."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str([*stack.values()][-1][0]) if stack else ""
    return path.removeprefix("L['self'].") or "forward"
