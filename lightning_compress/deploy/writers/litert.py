"""LiteRT: a module's computation for phones and microcontrollers, as a ``.tflite`` file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_compress.arguments import check_flag
from lightning_compress.deploy import flatbuffers
from lightning_compress.deploy.checks import check_equal, check_near, cpu_tensors
from lightning_compress.deploy.formats import ComputationWriter, check_full_precision, float_text, on_cpu
from lightning_compress.deploy.graph_passes import rewrite, rewritten
from lightning_compress.deploy.graph_passes.moves import round_after_moves, round_before_moves
from lightning_compress.deploy.graph_passes.pools import convolve_means, keep_space
from lightning_compress.deploy.graph_passes.rounding import holds_codes, sign_codes, spell_out_round
from lightning_compress.deploy.graph_passes.weights import (
    REMEDIES,
    float_layers,
    fold_constants,
    round_weights,
    unrounded_ends,
    widen_codes,
)
from lightning_compress.deploy.runtimes import TFLM, LiteRT
from lightning_compress.deploy.runtimes.silence import silenced
from lightning_compress.deploy.traces import OfTensors, check_fixed_values, trace
from lightning_compress.example_inputs import ExampleInput, line_of
from lightning_compress.lowering.modules import check_fits, is_quantized
from lightning_compress.messages import listed
from lightning_compress.quantization import profiles

__all__ = ["LiteRTModel"]

_ROUNDING = (keep_space, sign_codes, round_before_moves, round_after_moves)
_CONSTANTS = (widen_codes, fold_constants, convolve_means, round_weights, spell_out_round)


@dataclass(frozen=True)
class LiteRTModel(ComputationWriter):
    """Writes the computation for LiteRT, one sample at a time; the check runs it by XNNPACK and by reference kernels.

    A quantized module is written with int8 weights and activations. A warning names the layers that stay float.

    Args:
        integer_ends: the file takes and gives int8 codes, with their scales and zero points, in place of floats.

    Raises:
        TypeError: ``integer_ends`` is neither True nor False.
    """

    suffix = ".tflite"
    packages = ("litert_torch", "ai_edge_litert")
    extra = "litert"
    runtimes = (LiteRT(), TFLM())
    integer_ends: bool = False

    def __post_init__(self) -> None:
        check_flag(integer_ends=self.integer_ends)

    def require(self) -> None:
        with silenced():
            super().require()

    def prepare(self, module: nn.Module, example: ExampleInput) -> nn.Module:
        """The integer copy of a quantized module; any other module itself.

        Raises:
            ValueError: a quantized module in half precision, or with zero points of weights.
        """
        check_full_precision(module, self.suffix)
        if is_quantized(module):
            check_fits(module, profiles.Mobile())
        return super().prepare(module, example)

    def write(self, module: nn.Module, example: ExampleInput, path: Path) -> None:
        """Trace ``module``, rewrite its graph for LiteRT, and save it.

        Raises:
            ValueError: LiteRT lacks one of the operations, ``forward`` takes a number or a size from values, the module
                was trained for another profile than ``Mobile``, or ``integer_ends`` meets an input or output that is
                not rounded.
        """
        module, example = on_cpu(module, example)
        with silenced():
            program = trace(module, example, 1)
            check_fixed_values(program, type(module).__name__)
            graph = rewritten(program, *_ROUNDING)
        if ends := unrounded_ends(graph):
            raise ValueError(
                f"need a quantizer at the output of the last layer to write {path.name}, got none at {listed(ends)}: "
                "LiteRT's integer kernels write integers. Train with QATCallback(profile=profiles.Mobile())"
            )
        floating = float_layers(graph) if holds_codes(program.graph) else {}
        rewrite(graph, *_CONSTANTS)
        inputs = OfTensors(graph, program)
        with _quiet():
            try:
                _convert(inputs, holds_codes(graph.graph)).export(str(path))
            except Exception as error:
                raise _lacking(path, line_of(error)) from error
            self._finish(path)
        if floating:
            warnings.warn(float_text("LiteRT", path, floating, REMEDIES), stacklevel=3)

    def _finish(self, path: Path) -> None:
        model = flatbuffers.read(path)
        if self.integer_ends:
            flatbuffers.integer_ends(model)
            if floats := flatbuffers.names_of_float_ends(model):
                raise ValueError(
                    f"need quantizers at all inputs and outputs for integer_ends, got floats: {listed(floats)}"
                )
        flatbuffers.without_names(model)
        flatbuffers.write(model, path)

    def run(self, example: ExampleInput, path: Path) -> list[Tensor]:
        """Run the file by XNNPACK."""
        return self._run(LiteRT(), example, path)

    def _run(self, runtime: LiteRT, example: ExampleInput, path: Path) -> list[Tensor]:
        with silenced():
            try:
                return runtime.load(path)(cpu_tensors(example))
            except (RuntimeError, ValueError) as error:
                raise _lacking(path, line_of(error)) from error

    def check(self, module: nn.Module, example: ExampleInput, path: Path) -> None:
        """Compare the outputs of XNNPACK, and of LiteRT's reference kernels, with those of the module.

        Raises:
            ValueError: an output differs by more than the tolerance.
        """
        super().check(module, example, path)
        check = check_near if is_quantized(module) else check_equal
        check(f"{path.name}, by reference kernels,", module, example, self._run(LiteRT(reference=True), example, path))


def _convert(module: nn.Module, quantized: bool) -> Any:
    """The model of LiteRT."""
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    # The configuration says no more than that ranges are static: the operations that round are in the graph.
    quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config())
    configuration = QuantConfig(pt2e_quantizer=quantizer) if quantized else None
    with _strict():
        return litert_torch.convert(module, module.example, quant_config=configuration)


@contextmanager
def _strict() -> Iterator[None]:
    """Let the converter round what the graph rounds; by default it rounds float weights between integers, too.

    Its configuration has the option, for which ``convert`` has no argument.
    """
    from litert_torch._convert.litert_converter import converter_api_ext as converter

    kind = converter.ConvertToTFLConfig

    def strict() -> Any:
        configuration = kind()
        configuration.strict_qdq_mode = True
        return configuration

    converter.ConvertToTFLConfig = strict
    try:
        yield
    finally:
        converter.ConvertToTFLConfig = kind


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the converter, which prints its progress and changes the levels of torch's loggers."""
    names = ("LITERT_TORCH_SHOW_PROGRESS", "LITERT_TORCH_SILENCE_TORCH_LOGS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "n"))
    try:
        with silenced():
            yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _lacking(path: Path, found: str) -> ValueError:
    return ValueError(f"need operations that LiteRT computes to write {path.name}, got {found}: write .onnx or .pt2")
