"""ONNX Runtime, which runs ``.onnx`` files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from lightning_compress.deploy.onnx_passes.names import aliases, origin
from lightning_compress.deploy.runtimes.interface import IntegerOperators, Run, Runtime, counted

__all__ = ["OnnxRuntime", "is_float_layer", "is_integer"]

_PRODUCTS = {"Conv", "FusedConv", "ConvTranspose", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
_FLOAT = {*_PRODUCTS, "GRU", "LSTM", "RNN"}
_INTEGER = ("QLinear", "QGemm", "MatMulInteger", "MatMulNBits", "ConvInteger", "DynamicQuantizeMatMul")


@dataclass(frozen=True, repr=False)
class OnnxRuntime(Runtime):
    """ONNX Runtime with its CPU provider.

    Args:
        fused: False computes each operation as the file says it, without the integer kernels of this machine.
    """

    name = "ONNX Runtime"
    package = "onnxruntime"

    fused: bool = True

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
        from onnxscript import ir

        return self.operators_of(ir.load(path), path)

    def operators_of(self, model: Any, path: Path) -> IntegerOperators:
        """Count the operators of a file that was read before, as :meth:`operators` does.

        Args:
            model: its content, an ``onnx_ir.Model``.
            path: the file.
        """
        import onnx
        import onnxruntime

        with TemporaryDirectory() as folder:
            options = onnxruntime.SessionOptions()
            options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
            options.log_severity_level = 3  # silences the note that the optimized graph is for this machine
            onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            nodes = list(onnx.load(options.optimized_model_filepath).graph.node)
        layers = aliases(model)
        kinds = [(node.op_type, origin(node.name, layers)) for node in nodes]
        return counted(kinds, is_integer, is_float_layer)


def is_integer(kind: str) -> bool:
    """Whether a kind of operator computes in integers.

    >>> is_integer("QLinearConv"), is_integer("Conv")
    (True, False)
    """
    return kind.startswith(_INTEGER)


def is_float_layer(kind: str) -> bool:
    """Whether a kind of operator is a convolution, matrix product or recurrent layer in float.

    >>> is_float_layer("FusedConv"), is_float_layer("Relu")
    (True, False)
    """
    return kind in _FLOAT
