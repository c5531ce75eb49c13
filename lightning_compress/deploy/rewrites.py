"""Rewrites: the same computation in other operators, for which runtimes have faster kernels."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["spread_single_channels"]


def spread_single_channels(model: Any) -> int:
    """Let quantized 2-d convolutions of one input channel read a copy of it for each output channel, as groups.

    ``conv(x, W)`` with ``W`` of shape ``(M, 1, kH, kW)`` equals ``conv(expand(x, M), W, groups=M)``. ONNX Runtime
    gathers the pixels of an integer convolution byte by byte where there is but one channel; its depthwise kernel does
    not.

    Args:
        model: an ``onnx_ir.Model``; changed in place.

    Returns:
        how many convolutions were rewritten.
    """
    from onnxscript import ir

    changed = 0
    for node in list(model.graph):
        if node.op_type != "Conv" or node.attributes.get_int("group", 1) != 1:
            continue
        read, weight = (value.producer() for value in node.inputs[:2])
        if read is None or weight is None or {read.op_type, weight.op_type} != {"DequantizeLinear"}:
            continue
        shape = weight.inputs[0].shape
        if shape is None or len(shape) != 4 or shape[1] != 1 or shape[0] == 1 or len(read.outputs[0].uses()) > 1:
            continue
        name = f"{node.outputs[0].name}_channels"
        channels = ir.Value(name=name, const_value=ir.tensor(np.array([1, shape[0], 1, 1], np.int64), name=name))
        model.graph.register_initializer(channels)
        spread = ir.node("Expand", [read.inputs[0], channels], name=f"{name}_expand")
        model.graph.insert_before(read, spread)
        read.replace_input_with(0, spread.outputs[0])
        read.outputs[0].shape = None
        node.attributes["group"] = ir.AttrInt64("group", shape[0])
        changed += 1
    return changed
