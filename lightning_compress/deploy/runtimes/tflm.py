"""TensorFlow Lite Micro, which runs ``.tflite`` files on microcontrollers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from lightning_compress.deploy import flatbuffers
from lightning_compress.deploy.runtimes.interface import IntegerOperators, Run, Runtime, in_parts
from lightning_compress.deploy.runtimes.litert import as_entry, as_values, layers_of
from lightning_compress.deploy.runtimes.silence import silenced
from lightning_compress.example_inputs import line_of

__all__ = ["TFLM"]


class TFLM(Runtime):
    """The interpreter of TensorFlow Lite Micro, with its reference kernels.

    It computes what a microcontroller computes, and plans the memory as it does. How fast it does so says nothing of
    one.
    """

    name = "TFLM"
    package = "tflite_micro"
    timed = False

    def load(self, path: Path) -> Run:
        """Load a file; inputs and outputs are values, also where the file takes and gives codes.

        Raises:
            ValueError: the interpreter lacks one of the operations.
        """
        found: Any = None
        with silenced() as notes:
            (graph,) = flatbuffers.read(path).subgraphs
            try:
                found = _interpreter(path)
            except RuntimeError as error:
                notes.seek(0)
                lines = [line.strip() for line in notes if line.strip()]
                lacking = "; ".join(lines) or line_of(error)
        if found is None:
            raise ValueError(
                f"need operations that TensorFlow Lite Micro computes to run {path.name}, got {lacking}: LiteRT may "
                "run the file"
            )
        interpreter = found
        entries = [interpreter.get_input_details(place) for place in range(len(graph.inputs))]
        ends = [interpreter.get_output_details(place) for place in range(len(graph.outputs))]

        def run(inputs: Sequence[Tensor]) -> list[Tensor]:
            for place, (entry, tensor) in enumerate(zip(entries, inputs, strict=True)):
                interpreter.set_input(as_entry(tensor, entry["dtype"], *_grid(entry)), place)
            interpreter.invoke()
            return [as_values(interpreter.get_output(place), *_grid(end)) for place, end in enumerate(ends)]

        return in_parts(run, min((entry["shape"][0] for entry in entries if len(entry["shape"])), default=1))

    def operators(self, path: Path) -> IntegerOperators:
        with silenced():
            return layers_of(path)

    def memory(self, path: Path) -> int | None:
        """Bytes of the tensor arena: activations, and what the interpreter keeps of each operator and tensor."""
        with silenced() as notes:
            _interpreter(path).print_allocations()
            notes.seek(0)
            found = re.search(r"Arena allocation total (\d+) bytes", notes.read())
        return int(found[1]) if found else None


def _interpreter(path: Path) -> Any:
    """An interpreter whose arena is large enough."""
    from tflite_micro.python.tflite_micro.runtime import Interpreter

    model = flatbuffers.read(path)
    return Interpreter.from_file(str(path), arena_size=path.stat().st_size + 2 * flatbuffers.bytes_of_tensors(model))


def _grid(details: Any) -> tuple[float, int]:
    """Scale and zero point of an input or output; a scale of 0 if it has none."""
    found = details["quantization_parameters"]
    return (found["scales"][0], found["zero_points"][0]) if len(found["scales"]) else (0.0, 0)
