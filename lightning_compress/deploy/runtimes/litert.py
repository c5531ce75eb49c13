"""LiteRT, which runs ``.tflite`` files on phones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_compress.deploy import flatbuffers
from lightning_compress.deploy.runtimes.interface import IntegerOperators, Run, Runtime, counted, in_parts
from lightning_compress.deploy.runtimes.silence import silenced

__all__ = ["LiteRT", "as_entry", "as_values", "layers_of"]


@dataclass(frozen=True, repr=False)
class LiteRT(Runtime):
    """LiteRT with XNNPACK, on one thread.

    Args:
        reference: compute by the reference kernels of LiteRT in place of XNNPACK.
    """

    name = "LiteRT"
    package = "ai_edge_litert"

    reference: bool = False

    def load(self, path: Path) -> Run:
        """Load a file; inputs and outputs are values, also where the file takes and gives codes."""
        with silenced():
            from ai_edge_litert.interpreter import Interpreter, OpResolverType

            kernels = OpResolverType.BUILTIN_REF if self.reference else OpResolverType.AUTO
            interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=kernels)
            interpreter.allocate_tensors()
        entries, ends = interpreter.get_input_details(), interpreter.get_output_details()

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            for entry, tensor in zip(entries, inputs, strict=True):
                interpreter.set_tensor(entry["index"], as_entry(tensor, entry["dtype"], *entry["quantization"]))
            interpreter.invoke()
            return [as_values(interpreter.get_tensor(end["index"]), *end["quantization"]) for end in ends]

        return in_parts(run, min((entry["shape"][0] for entry in entries if len(entry["shape"])), default=1))

    def operators(self, path: Path) -> IntegerOperators:
        with silenced():
            return layers_of(path)


def layers_of(path: Path) -> IntegerOperators:
    """The layers of a file by the type of their outputs; means that are written as convolutions are no layers."""
    kinds = [f"{kind} {'int8' if integer else 'float'}" for kind, integer in flatbuffers.layers(flatbuffers.read(path))]
    numbered = [(kind, f"{kind.split()[0]} {index}") for index, kind in enumerate(kinds)]
    return counted(numbered, lambda kind: kind.endswith("int8"), lambda kind: kind.endswith("float"))


def as_entry(tensor: Tensor, dtype: Any, scale: float, zero_point: int) -> Any:
    """The array that an input takes: codes if it has a scale."""
    array = tensor.numpy()
    if scale:
        limits = np.iinfo(dtype)
        array = np.clip(np.rint(array / np.float32(scale)) + zero_point, limits.min, limits.max)
    return array.astype(dtype, copy=False)


def as_values(array: Any, scale: float, zero_point: int) -> Tensor:
    """The values of an output."""
    return torch.from_numpy((array.astype(np.float32) - zero_point) * np.float32(scale) if scale else array)
