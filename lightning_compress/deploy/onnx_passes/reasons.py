"""Reasons why ONNX Runtime computes a layer of a quantized model in float."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_compress.deploy.onnx_passes.names import RECURRENT, source

__all__ = ["REMEDIES", "reasons_of"]

_OUTPUTS = "nothing quantizes their outputs"
_UNFUSED = "their outputs are quantized after an activation function, with which they are not fused"

REMEDIES = dict.fromkeys(
    (_OUTPUTS, _UNFUSED),
    "train with QATCallback(profile=profiles.OnnxRuntime(round_outputs=True)), and with modules such as nn.ReLU() in "
    "place of F.relu, whose outputs quantizers reach",
)
"""Reason why a layer stays float -> what helps."""

_MOVES = {"Flatten", "MaxPool", "Pad", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
_CLAMPS = {"Clip", "Relu"}


def reasons_of(model: Any, floating: Iterable[str]) -> dict[str, str]:
    """Name of a layer -> the reason why no integer kernel computes it.

    Args:
        model: an ``onnx_ir.Model``.
        floating: names of its layers that ONNX Runtime computes in float.
    """
    nodes = {node.name: node for node in model.graph}
    return {name: _reason(nodes[name]) if name in nodes else "made of several operators" for name in floating}


def _reason(node: Any) -> str:
    if node.op_type in RECURRENT | {"ConvTranspose"}:
        return f"there is no integer kernel of {node.op_type}"
    if source(node.inputs[1]).const_value is None:
        return "products of two activations, which no quantizer reaches"
    if not _is_rounded_before(node.inputs[1], {"Transpose", "Reshape"}):
        return "their weights are not quantized"
    if not _is_rounded_before(node.inputs[0], _MOVES):
        return "nothing quantizes their inputs"
    if not _is_rounded_after(node.outputs[0]):
        return _OUTPUTS
    return _UNFUSED


def _is_rounded_before(value: Any, between: set[str]) -> bool:
    while value.producer() is not None and value.producer().op_type in between:
        value = value.producer().inputs[0]
    return value.producer() is not None and value.producer().op_type == "DequantizeLinear"


def _is_rounded_after(value: Any) -> bool:
    readers = [use.node for use in value.uses()]
    return not value.is_graph_output() and all(
        node.op_type == "QuantizeLinear" or (node.op_type in _CLAMPS | _MOVES and _is_rounded_after(node.outputs[0]))
        for node in readers
    )
