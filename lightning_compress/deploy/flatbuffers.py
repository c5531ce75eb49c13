"""Flatbuffers: the graph of a ``.tflite`` file, read and changed.

The names of tensors and operators are those of the schema of LiteRT,
https://ai.google.dev/edge/litert/conversion/tensorflow/build/operator_compatibility.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "bytes_of_tensors",
    "ends",
    "integer_ends",
    "layers",
    "metadata",
    "names_of_float_ends",
    "operators",
    "read",
    "without_names",
    "write",
]

_LAYERS = {
    "BATCH_MATMUL": "BatchMatMul",
    "CONV_2D": "Conv2D",
    "CONV_3D": "Conv3D",
    "CONV_3D_TRANSPOSE": "TransposedConv3D",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "FULLY_CONNECTED": "FullyConnected",
    "TRANSPOSE_CONV": "TransposedConv2D",
}
"""Operator -> the name that tables show."""
_LARGEST_TYPE, _DESCRIPTION = 8, 1024  # bytes


def read(path: Path) -> Any:
    """The graph of a file."""
    from ai_edge_litert.tools.flatbuffer_utils import read_model

    return read_model(str(path))


def write(model: Any, path: Path) -> None:
    """Write a graph to a file."""
    from ai_edge_litert.tools.flatbuffer_utils import write_model

    write_model(model, str(path))


def layers(model: Any) -> Iterator[tuple[str, bool]]:
    """The convolutions and matrix products of a graph, and whether each computes in integers."""
    from ai_edge_litert.schema_py_generated import TensorType

    for graph in model.subgraphs:
        for operator in graph.operators:
            kind = _kind(model, operator)
            if kind in _LAYERS and not _is_mean(model, graph, operator):
                output = graph.tensors[operator.outputs[0]].type
                yield _LAYERS[kind], output in (TensorType.INT8, TensorType.INT16)


def operators(model: Any) -> list[str]:
    """The kinds of all operators of a graph, in order."""
    return [_kind(model, operator) for graph in model.subgraphs for operator in graph.operators]


def ends(model: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Names of the inputs and of the outputs of the first graph -> type, sizes, and the grid of codes."""
    graph, signatures = model.subgraphs[0], model.signatureDefs or []
    names = {end.tensorIndex: end.name.decode() for one in signatures[:1] for end in (*one.inputs, *one.outputs)}
    return _described(graph, graph.inputs, names), _described(graph, graph.outputs, names)


def metadata(model: Any) -> dict[str, str]:
    """The entries of a file beside its graph: the description, and texts under their names."""
    found = {} if model.description is None else {"description": model.description.decode(errors="replace")}
    for entry in model.metadata or []:
        data = bytes(model.buffers[entry.buffer].data if model.buffers[entry.buffer].data is not None else b"")
        text = data.rstrip(b"\0").decode(errors="replace")
        found[entry.name.decode(errors="replace")] = text if text.isprintable() else f"{len(data)} bytes"
    return found


def bytes_of_tensors(model: Any) -> int:
    """Upper bound of the memory of a graph: of all its tensors, if none shared its place, and of their descriptions."""
    tensors = [tensor for graph in model.subgraphs for tensor in graph.tensors]
    return sum(_LARGEST_TYPE * int(np.prod(tensor.shape, initial=1)) + _DESCRIPTION for tensor in tensors)


def integer_ends(model: Any) -> None:
    """Let a graph take and give codes, where rounding is the first or the last that it does to a float."""
    (graph,) = model.subgraphs
    ends = [*graph.inputs, *graph.outputs]
    for tensor in [graph.tensors[index] for index in ends if ends.count(index) == 1]:
        index = graph.tensors.index(tensor)
        around = [one for one in graph.operators if index in (*one.inputs, *one.outputs)]
        kind = "QUANTIZE" if index in graph.inputs else "DEQUANTIZE"
        if len(around) == 1 and _kind(model, around[0]) == kind:
            (operator,) = around
            graph.operators.remove(operator)
            _replace(model, index, operator.outputs[0] if kind == "QUANTIZE" else operator.inputs[0])


def names_of_float_ends(model: Any) -> list[str]:
    """Names of the inputs and outputs that are floats."""
    from ai_edge_litert.schema_py_generated import TensorType

    (graph,) = model.subgraphs
    ends = [graph.tensors[index] for index in (*graph.inputs, *graph.outputs)]
    return [tensor.name.decode() for tensor in ends if tensor.type == TensorType.FLOAT32]


def without_names(model: Any) -> None:
    """Drop the names of all tensors but inputs and outputs: each repeats the place in PyTorch's modules."""
    for graph in model.subgraphs:
        kept = {*graph.inputs, *graph.outputs}
        for index, tensor in enumerate(graph.tensors):
            if index not in kept:
                tensor.name = None


def _described(graph: Any, indices: Any, names: dict[int, str]) -> dict[str, str]:
    from ai_edge_litert.schema_py_generated import TensorType

    types = {number: name.lower() for name, number in vars(TensorType).items() if isinstance(number, int)}
    found = {}
    for index in indices:
        tensor, grid = graph.tensors[index], ""
        if tensor.quantization is not None and tensor.quantization.scale is not None:
            grid = f", scale {tensor.quantization.scale[0]:.4g}, zero point {tensor.quantization.zeroPoint[0]}"
        name = names.get(index) or (tensor.name or b"").decode(errors="replace") or str(index)
        found[name] = f"{types[tensor.type]}, {' x '.join(map(str, tensor.shape)) or 'scalar'}{grid}"
    return found


def _is_mean(model: Any, graph: Any, operator: Any) -> bool:
    """Whether a layer computes the mean of a window: all its weights are one code, of the value ``1 / window``."""
    weight = graph.tensors[operator.inputs[1]]
    codes, scale = model.buffers[weight.buffer].data, getattr(weight.quantization, "scale", None)
    if codes is None or scale is None or len(weight.shape) != 4:
        return False
    values = np.asarray(codes).view(np.int8)[0] * np.asarray(scale)
    same = (np.asarray(codes) == codes[0]).all()
    return bool(same and np.allclose(values * weight.shape[1] * weight.shape[2], 1.0, rtol=1e-6))


def _replace(model: Any, old: int, new: int) -> None:
    """Delete a tensor of the only graph, and put another in its place."""
    (graph,), (signature,) = model.subgraphs, model.signatureDefs

    def moved(indices: Any) -> list[int]:
        return [place - (place > old) for place in (new if index == old else index for index in indices)]

    for operator in graph.operators:
        operator.inputs, operator.outputs = moved(operator.inputs), moved(operator.outputs)
    graph.inputs, graph.outputs = moved(graph.inputs), moved(graph.outputs)
    for entry in (*signature.inputs, *signature.outputs):
        (entry.tensorIndex,) = moved([entry.tensorIndex])
    del graph.tensors[old]


def _kind(model: Any, operator: Any) -> str:
    from ai_edge_litert.schema_py_generated import BuiltinOperator

    code = model.operatorCodes[operator.opcodeIndex]
    number: int = max(code.builtinCode, code.deprecatedBuiltinCode)  # files of old have the second alone
    kinds: dict[int, str] = {other: kind for kind, other in vars(BuiltinOperator).items() if isinstance(other, int)}
    return kinds[number]
