"""Runtimes: programs that run an exported file on this machine's CPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor

__all__ = ["IntegerOperators", "OnnxRuntime", "OpenVINO", "Run", "Runtime", "installed"]

Run: TypeAlias = Callable[[Sequence[Tensor]], list[Tensor]]
"""A loaded file: input tensors of the model, in order -> its output tensors."""


@dataclass(frozen=True)
class IntegerOperators:
    """The operators of a file that a runtime computes in integers, and those that stay float.

    Attributes:
        fused: integer operator -> number of its nodes.
        floating: names of the convolutions and matrix products that stay float.
    """

    fused: dict[str, int]
    floating: tuple[str, ...]

    @property
    def layers(self) -> int:
        """Number of fused convolutions and matrix products.

        >>> IntegerOperators({"QLinearConv": 9, "QLinearAdd": 3, "QGemm": 1}, ()).layers
        10
        """
        products = ("Conv", "Gemm", "MatMul", "FullyConnected")
        return sum(count for kind, count in self.fused.items() if any(product in kind for product in products))


class Runtime(ABC):
    """One runtime.

    Attributes:
        name: shown in tables.
        package: name of the package that is imported.
    """

    name: ClassVar[str]
    package: ClassVar[str]

    @abstractmethod
    def load(self, path: Path) -> Run:
        """Load a file, to run it on one thread in its own precision."""

    @abstractmethod
    def operators(self, path: Path) -> IntegerOperators:
        """Count the operators of a file as the runtime computes them on this machine's CPU."""


@dataclass(frozen=True)
class OnnxRuntime(Runtime):
    """ONNX Runtime with its CPU provider.

    Args:
        fused: False computes each operation as the file says it, without the integer kernels of this machine.
    """

    name = "ONNX Runtime"
    package = "onnxruntime"

    fused: bool = True

    _FLOAT: ClassVar = {"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
    _INTEGER: ClassVar = ("QLinear", "QGemm", "MatMulInteger", "MatMulNBits", "ConvInteger", "DynamicQuantizeMatMul")

    def load(self, path: Path) -> Run:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        if not self.fused:
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [entry.name for entry in session.get_inputs()]

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            arrays = (tensor.numpy() for tensor in inputs)
            return [torch.from_numpy(output) for output in session.run(None, dict(zip(names, arrays, strict=True)))]

        return run

    def operators(self, path: Path) -> IntegerOperators:
        import onnx
        import onnxruntime

        with TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
            options.log_severity_level = 3  # silences the note that the optimized graph is for this machine
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            nodes = list(onnx.load(options.optimized_model_filepath).graph.node)
        kinds = [(node.op_type, node.name) for node in nodes]
        return _counted(kinds, lambda kind: kind.startswith(self._INTEGER), lambda kind: kind in self._FLOAT)


class OpenVINO(Runtime):
    """OpenVINO's CPU plugin, floats as float32."""

    name = "OpenVINO"
    package = "openvino"

    _LAYERS: ClassVar = {"Convolution", "GroupConvolution", "FullyConnected", "MatMul"}

    def load(self, path: Path) -> Run:
        """Load a file; it is compiled for each input shape at its first call.

        With a free batch size every call would plan the memory again, a third of the time of a small network.
        """
        import openvino

        model = openvino.Core().read_model(path)
        plans: dict[tuple[tuple[int, ...], ...], Any] = {}

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            shapes = tuple(tuple(tensor.shape) for tensor in inputs)
            if shapes not in plans:
                fixed = model.clone()
                fixed.reshape(dict(enumerate(shapes)))
                plans[shapes] = self._compile(fixed).create_infer_request()
            outputs = plans[shapes].infer([tensor.numpy() for tensor in inputs], share_inputs=True)
            return [torch.from_numpy(output) for output in outputs.to_tuple()]

        return run

    def operators(self, path: Path) -> IntegerOperators:
        import openvino

        model = openvino.Core().read_model(path)
        notes = [(node.get_rt_info(), node) for node in self._compile(model).get_runtime_model().get_ops()]
        integer = {"u8", "i8"}
        kinds = [
            (f"{note['layerType'].astype(str)} {note['runtimePrecision'].astype(str)}", node.get_friendly_name())
            for note, node in notes
            if note["layerType"].astype(str) in self._LAYERS
        ]
        return _counted(kinds, lambda kind: kind.split()[1] in integer, lambda kind: kind.split()[1] not in integer)

    def _compile(self, model: Any) -> Any:
        import openvino

        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        return openvino.Core().compile_model(model, "CPU", options)


def installed(runtimes: Iterable[Runtime]) -> list[Runtime]:
    """The runtimes whose package is installed.

    >>> all(isinstance(runtime, Runtime) for runtime in installed([OnnxRuntime(), OpenVINO()]))
    True
    """
    return [runtime for runtime in runtimes if find_spec(runtime.package) is not None]


def _counted(
    kinds: Iterable[tuple[str, str]], integer: Callable[[str], bool], floating: Callable[[str], bool]
) -> IntegerOperators:
    kinds = list(kinds)
    fused = Counter(kind for kind, _ in kinds if integer(kind))
    return IntegerOperators(dict(fused), tuple(name for kind, name in kinds if floating(kind)))
