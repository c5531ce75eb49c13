"""Names: convolutions, matrix products and recurrent layers are called as the modules that compute them."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

__all__ = ["LAYERS", "RECURRENT", "aliases", "name_layers", "origin", "source"]

RECURRENT = frozenset({"GRU", "LSTM", "RNN"})
"""Kinds of the operators that compute recurrent layers."""

LAYERS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulInteger", *RECURRENT})
"""Kinds of the operators that are named."""

_ROOT = "forward"  # the name of an operator that ``forward`` of the model itself computes
_SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter notes the modules around an operation, and its own name
_FUSED = "pkg.onnxscript.rewriter.rule_name"  # that made one node of several: the scopes are those of the last
_OF_WEIGHTS = {"Cast", "DequantizeLinear", "QuantizeLinear", "Reshape", "Transpose"}
_ABSORBED = {"Add", "BatchNormalization", "Clip", "DequantizeLinear", "Mul", "QuantizeLinear", "Relu", "Sub"}


def name_layers(model: Any) -> int:
    """Give each convolution, matrix product and recurrent layer the path of its module as name.

    The second in a module is called ``path#2``, and so on.

    Args:
        model: an ``onnx_ir.Model`` with the metadata of the exporter; changed in place.

    Returns:
        Number of named nodes.
    """
    nodes = [node for node in model.graph if node.op_type in LAYERS and _SCOPES in node.metadata_props]
    met: Counter[str] = Counter()
    for node in nodes:
        path = _path(node)
        met[path] += 1
        node.name = path if met[path] == 1 else f"{path}#{met[path]}"
    return len(nodes)


def source(value: Any) -> Any:
    """The value that another one is made of, through operations on weights: an initializer, or one that is computed."""
    while value is not None and value.producer() is not None and value.producer().op_type in _OF_WEIGHTS:
        value = value.producer().inputs[0]
    return value


def aliases(model: Any) -> dict[str, str]:
    """All names by which runtimes may call a layer -> its name: those of its output, and of operators that it absorbs.

    Args:
        model: an ``onnx_ir.Model``.
    """
    found: dict[str, str] = {}
    for layer in model.graph:
        node = layer if layer.op_type in LAYERS else None
        while node is not None:
            for name in (node.name, *(output.name for output in node.outputs)):
                found.setdefault(name, layer.name)
            readers = [use.node for output in node.outputs for use in output.uses()]
            node = readers[0] if len(readers) == 1 and readers[0].op_type in _ABSORBED else None
    return {name: layer for name, layer in found.items() if name}


def origin(name: str, layers: Mapping[str, str]) -> str:
    """The layer of a file that a runtime has made another operator of; the name itself if there is none.

    Runtimes write before or after a name what they have done.

    Args:
        name: of the operator.
        layers: those of :func:`aliases`.

    >>> origin("fused net.10/MatMulScaleFusion/", {"net.1": "net.1", "net.10": "net.10"})
    'net.10'
    """
    whole = name.removeprefix("fused ").removesuffix("_nchwc")
    return next((layers[part] for part in accumulate(whole.split("/"), "{}/{}".format) if part in layers), name)


def _path(node: Any) -> str:
    """The path of the module that computes a node; of the one that holds its weight, if that says more."""
    *modules, _ = ast.literal_eval(node.metadata_props[_SCOPES])
    path: str = next((module for module in reversed(modules) if module), "")
    weight = source(node.inputs[1])
    owner, *of_weight = re.split(r"\.(?:weight|integers\.codes)$", weight.name or "")
    inner = of_weight and (_FUSED in node.metadata_props or owner.startswith(f"{path}." if path else ""))
    return owner if inner else path or _ROOT
