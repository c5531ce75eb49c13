"""The rules of TensorRT for explicit quantization, read from a file.

https://docs.nvidia.com/deeplearning/tensorrt, "Working with Quantized Types", and operators.md of onnx-tensorrt.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

LAYERS = {"Conv", "Gemm", "MatMul"}


def violations(path: Path) -> list[str]:
    """The nodes of a file that break a rule, each with the rule."""
    graph = onnx.load(path).graph
    constants = {entry.name: numpy_helper.to_array(entry) for entry in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    found = []
    for node in graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            found += [f"{node.name}: {rule}" for rule in _broken(node, constants)]
        elif node.op_type in LAYERS:
            weight = producers.get(node.input[1])
            if weight is not None and weight.op_type == "Transpose":
                weight = producers.get(weight.input[0])
            inputs = [producers.get(node.input[0]), weight]
            quantized = [producer is not None and _dequantizes(producer, producers) for producer in inputs]
            if quantized[0] != quantized[1]:
                found.append(f"{node.name}: one of the inputs of the layer is float, and the other is not")
    return found


def _broken(node: onnx.NodeProto, constants: dict[str, np.ndarray]) -> list[str]:
    scale, zero_point = constants[node.input[1]], constants[node.input[2]]
    stored = node.op_type == "DequantizeLinear" and node.input[0] in constants
    rules = {
        "the zero point is not 0": zero_point.any(),
        "the codes are no int8": zero_point.dtype != np.int8,
        "a scale is not positive": not (scale > 0).all(),
        "activations have several scales": not stored and scale.size > 1,
        "the scales of weights do not lie along axis 0": stored and scale.size > 1 and _axis(node) != 0,
    }
    return [rule for rule, broken in rules.items() if broken]


def _axis(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)


def _dequantizes(node: onnx.NodeProto, producers: dict[str, onnx.NodeProto]) -> bool:
    while node.op_type in ("MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Pad"):
        if node.input[0] not in producers:
            return False
        node = producers[node.input[0]]
    return node.op_type == "DequantizeLinear"
