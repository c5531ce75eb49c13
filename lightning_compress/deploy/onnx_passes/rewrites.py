"""Rewrites: the same computation in other operators, for which runtimes have faster kernels."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

__all__ = ["broadcast_constants", "fill_channels", "keep_floats", "pool_means", "round_moves"]

_MOVES = {"MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
_PER_CHANNEL = {"BatchNormalization", "QuantizeLinear", "DequantizeLinear"}


def broadcast_constants(model: Any) -> int:
    """Remove an ``Expand`` before an addition or product that broadcasts by itself, as after a removed branch.

    Operators between them, such as a normalization, then compute one value per channel, which runtimes do once.

    Args:
        model: an ``onnx_ir.Model``; changed in place.

    Returns:
        Number of removed nodes.
    """
    from onnxscript import ir

    changed = 0
    for node in list(model.graph):
        small, wide = node.inputs[0] if node.op_type == "Expand" else None, node.outputs[0]
        if small is None or small.shape is None or wide.shape is None or len(small.shape) != len(wide.shape):
            continue
        channels = len(wide.shape) > 1 and small.shape[1] == wide.shape[1]
        chain = _to_broadcast(wide, _PER_CHANNEL | {"Relu"} if channels else {"Relu"})
        if chain is not None:
            for value in chain:
                value.shape = small.shape
            ir.convenience.replace_all_uses_with(wide, small)
            changed += 1
    return changed


def fill_channels(model: Any) -> int:
    """Let quantized convolutions of one to three input channels read four: copies of the first, with weights of zero.

    ``conv(x, W)`` equals ``conv(x[:, [0, 1, 2, 0]], [W, 0])``. ONNX Runtime has an integer kernel that reads
    pixels in place, four channels at a time, for 16 and more outputs; other kernels gather them byte by byte first.

    Args:
        model: an ``onnx_ir.Model``; changed in place.

    Returns:
        Number of rewritten convolutions.
    """
    from onnxscript import ir

    changed = 0
    for node in list(model.graph):
        if node.op_type != "Conv" or node.attributes.get_int("group", 1) != 1:
            continue
        read, weight = (value.producer() for value in node.inputs[:2])
        if read is None or weight is None or {read.op_type, weight.op_type} != {"DequantizeLinear"}:
            continue
        codes, zero_point = (value.const_value.numpy() for value in (weight.inputs[0], weight.inputs[2]))
        outputs, inputs = codes.shape[:2]
        if inputs >= 4 or outputs < 16 or outputs % 4 or zero_point.any():
            continue
        name = node.outputs[0].name
        channels = _constant(model, f"{name}_channels", np.array([*range(inputs), *[0] * (4 - inputs)]))
        padding = [(0, 4 - inputs) if axis == 1 else (0, 0) for axis in range(codes.ndim)]
        filled = _constant(model, f"{name}_weight", np.pad(codes, padding))
        gather = ir.node("Gather", [read.inputs[0], channels], {"axis": 1}, name=f"{name}_gather")
        pair = [
            ir.node("DequantizeLinear", [value, *old.inputs[1:]], old.attributes, name=f"{old.name}_filled")
            for value, old in ((gather.outputs[0], read), (filled, weight))
        ]
        model.graph.insert_before(node, (gather, *pair))
        for index, dequantize in enumerate(pair):
            node.replace_input_with(index, dequantize.outputs[0])
        changed += 1
    return changed


def keep_floats(model: Any) -> int:
    """Let convolutions of float weights read ``max(x, lowest number)``, which is ``x``, where ``x`` is quantized.

    Between quantized activations, ONNX Runtime would quantize these weights too, with one scale per tensor. That is not
    the trained computation, and the layer was excluded because it needs its precision.

    Args:
        model: an ``onnx_ir.Model``; changed in place.

    Returns:
        Number of rewritten convolutions.
    """
    from onnxscript import ir

    changed = 0
    for node in list(model.graph):
        if node.op_type not in ("Conv", "ConvTranspose"):
            continue
        read, weight = (value.producer() for value in node.inputs[:2])
        if weight is None and read is not None and read.op_type == "DequantizeLinear":
            name = node.outputs[0].name
            lowest = _constant(model, f"{name}_lowest", np.array(np.finfo(np.float32).min, dtype=np.float32))
            same = ir.node("Max", [node.inputs[0], lowest], name=f"{name}_max")
            model.graph.insert_before(node, same)
            node.replace_input_with(0, same.outputs[0])
            changed += 1
    return changed


def pool_means(model: Any) -> int:
    """Write the mean over the space of a quantized map as ``GlobalAveragePool``, quantized before it is flattened.

    ONNX Runtime has an integer kernel for ``GlobalAveragePool``, and none for ``ReduceMean``.

    Args:
        model: an ``onnx_ir.Model``; changed in place.

    Returns:
        Number of rewritten means.
    """
    from onnxscript import ir

    changed = 0
    for mean in list(model.graph):
        if mean.op_type != "ReduceMean" or not _over_space(mean):
            continue
        chain = _to_quantizer(mean)
        read = mean.inputs[0].producer()
        if chain is None or read is None or read.op_type != "DequantizeLinear":
            continue
        *shapes, quantizer = chain
        name = mean.outputs[0].name
        pooled = ir.node("GlobalAveragePool", [mean.inputs[0]], name=f"{name}_pool")
        rounded = ir.node("QuantizeLinear", [pooled.outputs[0], *quantizer.inputs[1:]], name=f"{name}_quantize")
        model.graph.insert_before(mean, (pooled, rounded))
        value = rounded.outputs[0]
        if not mean.attributes.get_int("keepdims", 1):
            flat = ir.node("Flatten", [value], name=f"{name}_flatten")
            model.graph.insert_before(mean, flat)
            value = flat.outputs[0]
        ir.convenience.replace_all_uses_with(mean.outputs[0], value)
        last = shapes[-1].outputs[0] if shapes else value
        for node in shapes:
            node.outputs[0].dtype = None
        ir.convenience.replace_all_uses_with(quantizer.outputs[0], last)
        model.graph.remove([mean, quantizer], safe=True)
        changed += 1
    return changed


def round_moves(model: Any) -> int:
    """Round signed codes once more after operators that hand on values as they are: the same codes.

    ONNX Runtime does it itself when it loads a file. Version 1.32 does it wrongly for int8 on x86 CPUs, and refuses the
    graph that it has made.

    Args:
        model: an ``onnx_ir.Model``; changed in place.

    Returns:
        Number of operators whose output is rounded.
    """
    from onnxscript import ir

    changed = 0
    for node in list(model.graph):
        read, value = node.inputs[0].producer() if node.op_type in _MOVES else None, node.outputs[0]
        if read is None or read.op_type != "DequantizeLinear" or not _is_signed_activation(read):
            continue
        uses = [use for use in value.uses() if use.node.op_type != "QuantizeLinear"]
        if uses:
            form, name = read.inputs[1:], value.name
            quantize = ir.node("QuantizeLinear", [value, *form], read.attributes, name=f"{name}_quantize")
            values = [quantize.outputs[0], *form]
            dequantize = ir.node("DequantizeLinear", values, read.attributes, name=f"{name}_dequantize")
            model.graph.insert_after(node, (quantize, dequantize))
            for use in uses:
                use.node.replace_input_with(use.idx, dequantize.outputs[0])
            changed += 1
    return changed


def _is_signed_activation(dequantize: Any) -> bool:
    zero_point = dequantize.inputs[2].const_value if len(dequantize.inputs) > 2 else None
    signed = zero_point is not None and zero_point.numpy().dtype == np.int8
    return signed and dequantize.inputs[0].const_value is None


def _to_broadcast(value: Any, passing: Collection[str]) -> list[Any] | None:
    """The values from an expanded one, through ``passing`` operators, to sums and products with whole tensors."""
    values = [value]
    for value in values:  # grows as it is walked
        if value.is_graph_output():
            return None
        for use in value.uses():
            node, whole = use.node, use.node.outputs[0].shape
            if node.op_type in ("Add", "Mul") and whole is not None:
                if node.inputs[1 - use.idx].shape != whole or node.inputs[1 - use.idx] in values:
                    return None
            elif node.op_type in passing and use.idx == 0:
                values.append(node.outputs[0])
            else:
                return None
    return values


def _constant(model: Any, name: str, array: Any) -> Any:
    """A new initializer."""
    from onnxscript import ir

    value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
    model.graph.register_initializer(value)
    return value


def _over_space(mean: Any) -> bool:
    """Whether a ``ReduceMean`` takes the mean over the last two of four dimensions."""
    axes = mean.inputs[1].const_value if len(mean.inputs) > 1 and mean.inputs[1] is not None else None
    shape = mean.inputs[0].shape
    if axes is None or shape is None or len(shape) != 4:
        return False
    return sorted(int(axis) % 4 for axis in axes.numpy().flatten()) == [2, 3]


def _to_quantizer(mean: Any) -> list[Any] | None:
    """The nodes that change the shape of a mean, up to and with the ``QuantizeLinear`` that alone reads it."""
    chain, value = [], mean.outputs[0]
    while len(value.uses()) == 1:
        node = value.uses()[0].node
        chain.append(node)
        if node.op_type == "QuantizeLinear":
            return chain
        if node.op_type not in ("Reshape", "Flatten", "Squeeze"):
            return None
        value = node.outputs[0]
    return None
