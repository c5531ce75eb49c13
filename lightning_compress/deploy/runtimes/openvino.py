"""OpenVINO, which runs ``.onnx`` files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from lightning_compress.deploy.onnx_passes.names import aliases, origin
from lightning_compress.deploy.runtimes.interface import IntegerOperators, Run, Runtime, counted

__all__ = ["OpenVINO"]


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
        from onnxscript import ir

        model, layers = openvino.Core().read_model(path), aliases(ir.load(path))
        notes = [(node.get_rt_info(), node) for node in self._compile(model).get_runtime_model().get_ops()]
        integer = {"u8", "i8"}
        kinds = [
            (
                f"{note['layerType'].astype(str)} {note['runtimePrecision'].astype(str)}",
                origin(node.get_friendly_name(), layers),
            )
            for note, node in notes
            if note["layerType"].astype(str) in self._LAYERS
        ]
        return counted(kinds, lambda kind: kind.split()[1] in integer, lambda kind: kind.split()[1] not in integer)

    def _compile(self, model: Any) -> Any:
        import openvino

        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        return openvino.Core().compile_model(model, "CPU", options)
