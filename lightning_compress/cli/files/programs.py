"""Programs: the graphs of ``.pte``, ``.tflite`` and ``.pt2`` files, as their runtimes have them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from lightning_compress.cli.files.graphs import Graph, as_dict, tables
from lightning_compress.deploy import flatbuffers
from lightning_compress.deploy.runtimes import ExecuTorch, LiteRT
from lightning_compress.deploy.runtimes.interface import IntegerOperators, Runtime, installed
from lightning_compress.deploy.runtimes.silence import silenced

__all__ = ["as_dict", "read", "tables"]

_MARKS = {".pte": b"ET12", ".tflite": b"TFL3"}  # bytes 4 to 8 of a file
_KINDS = {".pte": "a program of ExecuTorch", ".tflite": "a model of LiteRT", ".pt2": "a program of torch.export"}
_DTYPES = {"BYTE": "uint8", "CHAR": "int8", "SHORT": "int16", "INT": "int32", "LONG": "int64", "HALF": "float16"} | {
    "FLOAT": "float32",
    "DOUBLE": "float64",
}
_LAYER = re.compile(r"aten\.(conv\w*|linear|addmm|mm|bmm|matmul)\.")


def read(path: Path) -> Graph:
    """Read a file; nothing in it runs.

    Raises:
        ImportError: the runtime of the file is not installed.
        ValueError: the file is none of its kind, or damaged.
        OSError: the file cannot be read.
    """
    suffix, content = path.suffix, path.read_bytes()
    if suffix == ".pte":
        _need(ExecuTorch(), "executorch", suffix)
    if suffix == ".tflite":
        _need(LiteRT(), "litert", suffix)
    try:
        if content[4:8] != _MARKS.get(suffix, content[4:8]):
            raise ValueError("another mark")
        return {".pte": _executorch, ".tflite": _litert, ".pt2": _exported}[suffix](path)
    except (Exception, SystemExit) as error:  # of readers of other libraries, which do not name the file
        kind = _KINDS[suffix]
        raise ValueError(f"need {kind}, got {str(path)!r}, which is none or is damaged") from error


def _need(runtime: Runtime, extra: str, suffix: str) -> None:
    if not installed([runtime]):
        raise ImportError(f"need {runtime.package} to inspect {suffix}: pip install 'lightning-compress[{extra}]'")


def _executorch(path: Path) -> Graph:
    with silenced():
        from executorch.exir._serialize._program import deserialize_pte_binary

        program = deserialize_pte_binary(path.read_bytes()).program
    (plan, *others) = program.execution_plan
    inputs, outputs = (
        {f"{index}": _of_executorch(plan.values[value].val) for index, value in enumerate(values)}
        for values in (plan.inputs, plan.outputs)
    )
    kernels = [plan.operators[call.op_index].name for chain in plan.chains for call in ExecuTorch.kernel_calls(chain)]
    graph = Graph(
        path.stat().st_size,
        inputs,
        outputs,
        dict(Counter(kernels).most_common()),
        metadata={"methods": ", ".join(one.name for one in (plan, *others)), "version": str(program.version)},
        delegates=dict(Counter(one.id for one in plan.delegates)),
    )
    return _layered(graph, ExecuTorch().operators(path))


def _of_executorch(value: Any) -> str:
    if not hasattr(value, "sizes"):
        return type(value).__name__.lower()
    most = " at most" if value.shape_dynamism.name.startswith("DYNAMIC") else ""
    return _sized(f"{_DTYPES.get(value.scalar_type.name, value.scalar_type.name.lower())}", value.sizes) + most


def _litert(path: Path) -> Graph:
    with silenced():
        model = flatbuffers.read(path)
    inputs, outputs = flatbuffers.ends(model)
    kinds = dict(Counter(flatbuffers.operators(model)).most_common())
    told = {**flatbuffers.metadata(model), "version": str(model.version)}
    graph = Graph(path.stat().st_size, inputs, outputs, kinds, metadata=told)
    return _layered(graph, LiteRT().operators(path))


def _layered(graph: Graph, found: IntegerOperators) -> Graph:
    """The graph with its layers of both kinds, without the type behind the name of an operator."""
    integer = {kind.split()[0]: count for kind, count in found.fused.items()}
    return replace(
        graph, integer_layers=integer, float_layers=dict(Counter(name.split()[0] for name in found.floating))
    )


def _exported(path: Path) -> Graph:
    """The graph of a program of ``torch.export``: its text alone is read, neither weights nor pickles."""
    with ZipFile(path) as package:
        names = {name.partition("/")[2]: name for name in package.namelist()}
        if machine_code := [name for name in names if "aotinductor" in name]:
            return Graph(path.stat().st_size, {}, {}, {}, metadata={"machine code": ", ".join(sorted(machine_code))})
        model = json.loads(package.read(names["models/model.json"]))
        config = json.loads(package.read(names["data/weights/model_weights_config.json"]))["config"]
        held = {
            key: package.getinfo(names[f"data/weights/{one['path_name']}"]).file_size for key, one in config.items()
        }
    graph, signature = model["graph_module"]["graph"], model["graph_module"]["signature"]
    values = graph["tensor_values"]
    inputs = dict(_ends(graph["inputs"], signature["input_specs"], "user_input", values))
    outputs = dict(_ends(graph["outputs"], signature["output_specs"], "user_output", values))
    operators = Counter(node["target"].removeprefix("torch.ops.") for node in graph["nodes"])
    layers = Counter(match[1] for name in operators.elements() if (match := _LAYER.match(name)))
    weights = tuple(
        (name, _dtype(one["tensor_meta"]), tuple(map(_size, one["tensor_meta"]["sizes"])), held[name])
        for name, one in config.items()
    )
    return Graph(
        path.stat().st_size,
        inputs,
        outputs,
        dict(operators.most_common()),
        weights=weights,
        metadata={"torch": str(model.get("torch_version", ""))},
        integer_layers={},
        float_layers=dict(layers),
    )


def _ends(arguments: Iterable[Any], specs: Iterable[Any], role: str, values: Any) -> Iterable[tuple[str, str]]:
    """Name and description of each input or output that the user gives or gets."""
    for argument, spec in zip(arguments, specs, strict=True):
        if role in spec:
            ((kind, content),) = argument.items()
            name = content["name"] if isinstance(content, dict) and "name" in content else str(content)
            found = values.get(name)
            yield name, kind.removeprefix("as_") if found is None else _sized(_dtype(found), map(_size, found["sizes"]))


def _size(size: Any) -> Any:
    """A number, or the name of a size that may vary."""
    if "as_int" in size:
        return size["as_int"]
    text = size["as_expr"]["expr_str"]
    named = re.match(r"Symbol\('(\w+)'", text)
    return named[1] if named else text


def _dtype(meta: Any) -> str:
    from torch._export.serde.schema import ScalarType

    name = ScalarType(meta["dtype"]).name
    return _DTYPES.get(name, name.lower())


def _sized(dtype: str, sizes: Iterable[Any]) -> str:
    return f"{dtype}, {' x '.join(map(str, sizes)) or 'scalar'}"
