"""ExecuTorch with its XNNPACK delegate, which runs ``.pte`` files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

from lightning_compress.deploy.runtimes.interface import IntegerOperators, Run, Runtime, counted, in_parts
from lightning_compress.deploy.runtimes.silence import silenced

__all__ = ["ExecuTorch"]


class ExecuTorch(Runtime):
    """ExecuTorch's portable kernels and XNNPACK, on one thread.

    Layers are counted as XNNPACK gets them: those of its delegates by the type of their output, and those that no
    delegate computes.
    """

    name = "ExecuTorch"
    package = "executorch"

    _DELEGATED: ClassVar = {"XNNConv2d", "XNNDepthwiseConv2d", "XNNConvTranspose2d", "XNNFullyConnected"}
    _PORTABLE: ClassVar = {"aten::convolution", "aten::linear", "aten::addmm", "aten::mm", "aten::bmm"}

    def load(self, path: Path) -> Run:
        """Load a file; more samples than its largest batch run in several batches."""
        with silenced():
            import executorch.kernels.quantized  # noqa: F401  (registers the kernels that round)
            from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
            from executorch.runtime import Runtime as Engine

            _unsafe_reset_threadpool(1)
            method = Engine.get().load_program(path).load_method("forward")
        shapes = [method.metadata.input_tensor_meta(i).sizes() for i in range(method.metadata.num_inputs())]
        most = min((shape[0] for shape in shapes if shape), default=1)
        return in_parts(lambda inputs: list(method.execute(inputs)), most)

    def operators(self, path: Path) -> IntegerOperators:
        with silenced():
            from executorch.exir._serialize._program import deserialize_pte_binary

            program = deserialize_pte_binary(path.read_bytes()).program
            kinds = [kind for data in program.backend_delegate_data for kind in self._delegated(bytes(data.data))]
        for plan in program.execution_plan:
            names = [plan.operators[call.op_index].name for chain in plan.chains for call in self.kernel_calls(chain)]
            kinds += [name for name in names if name in self._PORTABLE]
        numbered = [(kind, f"{kind.split()[0]} {index}") for index, kind in enumerate(kinds)]
        return counted(numbered, lambda kind: kind.endswith("qint8"), lambda kind: not kind.endswith("qint8"))

    @staticmethod
    def missing(program: Any) -> list[str]:
        """Operations of a program for which this runtime has no kernel."""
        with silenced():
            from executorch.runtime import Runtime as Engine

            known = Engine.get().operator_registry.operator_names
        used = {
            f"{one.name}.{one.overload}".removesuffix(".") for plan in program.execution_plan for one in plan.operators
        }
        return sorted(used - known)

    @staticmethod
    def kernel_calls(chain: Any) -> list[Any]:
        """The calls of kernels, which no delegate computes, among the instructions of a program."""
        calls = [instruction.instr_args for instruction in chain.instructions]
        return [call for call in calls if hasattr(call, "op_index")]

    def _delegated(self, data: bytes) -> Iterator[str]:
        """Kind and type of the output of each layer in a delegate of XNNPACK."""
        graph = _graph(data)
        values = [value["xvalue_union"] for value in graph["xvalues"]]
        tensors = [value.get("tensor_value", value) for value in values]
        types = {tensor["id_out"]: tensor["datatype"].removeprefix("xnn_datatype_") for tensor in tensors}
        for node in graph["xnodes"]:
            kind = node["xnode_union_type"]
            if kind in self._DELEGATED:
                yield f"{kind.removeprefix('XNN')} {types[node['xnode_union']['output_id']]}"


def _graph(data: bytes) -> Any:
    """The graph of a delegate of XNNPACK: a header, and a flatbuffer that ExecuTorch's own tool reads."""
    import executorch
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader
    from executorch.exir._serialize._flatbuffer import _flatc_decompile

    header = XNNHeader.from_bytes(data[: XNNHeader.EXPECTED_LENGTH])
    schema = Path(executorch.__path__[0], "backends", "xnnpack", "serialization", "schema.fbs")
    with TemporaryDirectory() as folder:
        file = Path(folder, "graph.bin")
        file.write_bytes(data[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size])
        _flatc_decompile(folder, str(schema), str(file), ["--raw-binary"])
        text = file.with_suffix(".json").read_text()
    return json.loads(re.sub(r":\s*(-?)inf\b", r': "\1inf"', text))  # JSON has no infinity
