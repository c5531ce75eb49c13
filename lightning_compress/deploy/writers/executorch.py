"""ExecuTorch: a module's computation for phones and other devices, in XNNPACK's kernels."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.export import ExportedProgram

from lightning_compress.arguments import check_count
from lightning_compress.deploy.checks import cpu_tensors
from lightning_compress.deploy.formats import ComputationWriter, check_full_precision, float_text, on_cpu
from lightning_compress.deploy.graph_passes import rewrite, rewritten
from lightning_compress.deploy.graph_passes.moves import round_after_moves, round_before_moves
from lightning_compress.deploy.graph_passes.pools import average_without_padding, keep_space
from lightning_compress.deploy.graph_passes.rounding import dequantize_for_each, holds_codes, sign_codes
from lightning_compress.deploy.graph_passes.weights import REMEDIES, float_layers, fold_constants, widen_codes
from lightning_compress.deploy.runtimes import ExecuTorch
from lightning_compress.deploy.runtimes.silence import silenced
from lightning_compress.deploy.traces import OfTensors, check_fixed_values, trace
from lightning_compress.example_inputs import ExampleInput, line_of
from lightning_compress.messages import listed

__all__ = ["ExecuTorchProgram"]

_ROUNDING = (keep_space, average_without_padding, sign_codes, round_before_moves, round_after_moves)
_CONSTANTS = (widen_codes, fold_constants, dequantize_for_each)


@dataclass(frozen=True)
class ExecuTorchProgram(ComputationWriter):
    """Writes the computation as a program of ExecuTorch, with XNNPACK's kernels; the check runs it in ExecuTorch.

    A quantized module is written with int8 weights and activations. A warning names the layers that stay float.

    Args:
        largest_batch: the file takes batches of one up to so many samples. The device reserves memory for the largest.
    """

    suffix = ".pte"
    packages = ("executorch",)
    extra = "executorch"
    runtimes = (ExecuTorch(),)
    largest_batch: int = 1

    def __post_init__(self) -> None:
        check_count(1, largest_batch=self.largest_batch)

    def prepare(self, module: nn.Module, example: ExampleInput) -> nn.Module:
        """The integer copy of a quantized module; any other module itself.

        Raises:
            ValueError: a quantized module in half precision.
        """
        check_full_precision(module, self.suffix)
        return super().prepare(module, example)

    def write(self, module: nn.Module, example: ExampleInput, path: Path) -> None:
        """Trace ``module``, rewrite its graph for XNNPACK, and save it.

        Raises:
            ValueError: ExecuTorch lacks one of the operations, or ``forward`` takes a number or a size from values.
        """
        module, example = on_cpu(module, example)
        with silenced():
            program = trace(module, example, self.largest_batch)
            check_fixed_values(program, type(module).__name__)
            graph = rewritten(program, *_ROUNDING)
            floating = float_layers(graph) if holds_codes(program.graph) else {}
            rewrite(graph, *_CONSTANTS)
            inputs = OfTensors(graph, program)
            try:
                lowered = _lowered(trace(inputs, inputs.example, self.largest_batch))
            except RuntimeError as error:
                raise _lacking(path, line_of(error)) from error
        if missing := ExecuTorch.missing(lowered.executorch_program):
            raise _lacking(path, listed(missing))
        path.write_bytes(lowered.buffer)
        if floating:
            warnings.warn(float_text("ExecuTorch", path, floating, REMEDIES), stacklevel=3)

    def run(self, example: ExampleInput, path: Path) -> list[Tensor]:
        """Run the file in ExecuTorch.

        Raises:
            ValueError: XNNPACK refuses the graph.
        """
        with silenced():
            try:
                return ExecuTorch().load(path)(cpu_tensors(example))
            except RuntimeError as error:
                raise _lacking(path, line_of(error)) from error


def _lowered(program: ExportedProgram) -> Any:
    """The program of ExecuTorch: XNNPACK computes all parts that it can, ExecuTorch's portable kernels the rest."""
    import executorch.kernels.quantized  # noqa: F401  (registers the operations that round)
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    edge = to_edge_transform_and_lower(
        program,
        partitioner=[XnnpackPartitioner()],
        compile_config=EdgeCompileConfig(_check_ir_validity=False),  # it does not know the operations that round
    )
    return edge.to_executorch()


def _lacking(path: Path, found: str) -> ValueError:
    return ValueError(
        f"need operations that ExecuTorch computes to write {path.name}, got {found}: write .onnx or .pt2"
    )
