"""Graphs: inputs, outputs, operators, weights and metadata of a file that a runtime computes; those of ``.onnx``."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from lightning_compress.cli.screens.tables import narrow_table, pairs_table, printable

__all__ = ["Graph", "as_dict", "read", "tables"]


@dataclass(frozen=True)
class Graph:
    """The content of a file.

    Attributes:
        file_bytes: size of the file.
        inputs: name -> dtype and sizes.
        outputs: name -> dtype and sizes.
        operators: kind -> how many.
        opset: version of each domain of operators.
        weights: name, dtype, sizes and bytes of each tensor that the file lists.
        metadata: key -> text.
        integer_layers: kind -> number of the convolutions and matrix products that the runtime computes in integers.
        float_layers: kind -> number of those that it computes in float.
        delegates: name -> number of the parts that another library computes.
    """

    file_bytes: int
    inputs: dict[str, str]
    outputs: dict[str, str]
    operators: dict[str, int]
    opset: dict[str, int] = field(default_factory=dict)
    weights: tuple[tuple[str, str, tuple[int, ...], int], ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    integer_layers: dict[str, int] | None = None
    float_layers: dict[str, int] | None = None
    delegates: dict[str, int] = field(default_factory=dict)


def read(path: Path) -> Graph:
    """Read an ``.onnx`` file; no file beside it is read.

    Raises:
        ImportError: the package onnx is not installed.
        ValueError: the file is no ONNX model.
        OSError: the file cannot be read.
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("need onnx to inspect .onnx: pip install 'lightning-compress[onnx]'") from error
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # of protobuf
        raise ValueError(f"need an ONNX model, got {str(path)!r}, which is none or is damaged") from error
    if not model.graph.node:
        raise ValueError(f"need an ONNX model, got {str(path)!r}, which has no operators")
    graph, kinds = model.graph, onnx.TensorProto.DataType.Name
    return Graph(
        len(content),
        {one.name: _kind(one, kinds) for one in graph.input},
        {one.name: _kind(one, kinds) for one in graph.output},
        dict(Counter(node.op_type for node in graph.node).most_common()),
        {one.domain or "ai.onnx": one.version for one in model.opset_import},
        tuple((one.name, kinds(one.data_type).lower(), tuple(one.dims), one.ByteSize()) for one in graph.initializer),
        {one.key: one.value for one in model.metadata_props},
    )


def tables(found: Graph) -> list[Table]:
    """The model, its operators and its weights."""
    whole = pairs_table("", "", title="Model")
    rows = {
        "file, bytes": f"{found.file_bytes:,}",
        **{f"input {name}": kind for name, kind in found.inputs.items()},
        **{f"output {name}": kind for name, kind in found.outputs.items()},
        "opset": ", ".join(f"{domain} {version}" for domain, version in found.opset.items()),
        "layers in integers": _counts(found.integer_layers),
        "layers in float": _counts(found.float_layers),
        "delegates": _counts(found.delegates or None),
        "operators": _counts(found.operators or None),
        **found.metadata,
    }
    for key, text in rows.items():
        if text:
            whole.add_row(printable(key), printable(text))
    if not found.weights:
        return [whole]
    weights = narrow_table("weight", "shape", "dtype", "bytes", title="Weights")
    for name, dtype, sizes, size in found.weights:
        weights.add_row(printable(name), " x ".join(map(str, sizes)) or "scalar", dtype, f"{size:,}")
    return [whole, weights]


def as_dict(found: Graph) -> dict[str, Any]:
    """Everything as numbers and text."""
    weights = [dict(zip(("name", "dtype", "shape", "bytes"), one, strict=True)) for one in found.weights]
    return {**vars(found), "weights": weights}


def _counts(numbers: dict[str, int] | None) -> str:
    """Counts as text; empty if nothing was counted.

    >>> _counts({"Gemm": 2, "Relu": 1}), _counts({}), _counts(None)
    ('2 Gemm, 1 Relu', 'none', '')
    """
    if numbers is None:
        return ""
    return ", ".join(f"{count} {name}" for name, count in numbers.items()) or "none"


def _kind(value: Any, kinds: Any) -> str:
    tensor = value.type.tensor_type
    sizes = [size.dim_param or str(size.dim_value) for size in tensor.shape.dim]
    return f"{kinds(tensor.elem_type).lower()}, {' x '.join(sizes) or 'scalar'}"
