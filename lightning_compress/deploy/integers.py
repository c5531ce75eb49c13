"""Integers: which layers of an ONNX file a runtime really computes in integers."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["IntegerOperators", "integer_operators"]

_FLOAT = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}
_INTEGER = ("QLinear", "QGemm", "MatMulInteger", "ConvInteger", "DynamicQuantizeMatMul")


@dataclass(frozen=True)
class IntegerOperators:
    """What ONNX Runtime's optimized graph holds.

    Attributes:
        fused: integer operator -> how many there are.
        floating: names of the convolutions and matrix products that are left in float.
    """

    fused: dict[str, int]
    floating: tuple[str, ...]


def integer_operators(path: Path) -> IntegerOperators:
    """Load an ``.onnx`` file in ONNX Runtime as it would run on this machine's CPU, and count.

    Raises:
        ImportError: the extra ``onnx`` is not installed.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise ImportError(f"need {error.name} to read .onnx: pip install 'lightning-compress[onnx]'") from error
    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        options.log_severity_level = 3  # that the optimized graph is this machine's is what we want to know
        onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        nodes = list(onnx.load(options.optimized_model_filepath).graph.node)
    fused = Counter(node.op_type for node in nodes if node.op_type.startswith(_INTEGER))
    return IntegerOperators(dict(fused), tuple(node.name for node in nodes if node.op_type in _FLOAT))
