"""ONNX: a module's computation for every runtime that reads the format."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.arguments import check_count, check_patterns, shown
from lightning_compress.deploy.checks import check_near, cpu_tensors
from lightning_compress.deploy.formats import ComputationWriter, check_full_precision, float_text
from lightning_compress.deploy.graph_passes import rewrite
from lightning_compress.deploy.graph_passes.attention import give_heads
from lightning_compress.deploy.onnx_passes import blocks, rows
from lightning_compress.deploy.onnx_passes.blocks import pack_four_bits, with_blocks
from lightning_compress.deploy.onnx_passes.names import name_layers
from lightning_compress.deploy.onnx_passes.reasons import REMEDIES, reasons_of
from lightning_compress.deploy.onnx_passes.rewrites import (
    broadcast_constants,
    fill_channels,
    keep_floats,
    pool_means,
    round_moves,
)
from lightning_compress.deploy.runtimes import OnnxRuntime, OnnxRuntimeWeb, OpenVINO
from lightning_compress.deploy.traces import trace
from lightning_compress.example_inputs import ExampleInput, as_arguments, line_of
from lightning_compress.lowering.modules import check_fits, is_quantized, lower
from lightning_compress.quantization import profiles
from lightning_compress.quantization.activations.quantizers import quantizers_of
from lightning_compress.quantization.profiles import Profile

__all__ = ["Onnx"]


@dataclass(frozen=True)
class Onnx(ComputationWriter):
    """Writes the computation as ONNX, with a free batch size; the check runs it in ONNX Runtime.

    A quantized module is written with integer weights and explicit ``QuantizeLinear`` and ``DequantizeLinear``, which
    runtimes fuse into integer kernels. A warning names the layers that ONNX Runtime computes in float all the same.

    Args:
        profile: of the runtime that will run the file. For one with symmetric activations the codes of activations are
            int8 with zero points of 0, and for one that does not round biases all biases are floats, as TensorRT needs
            both. By default TensorRT if the ranges of all activations are symmetric, else ONNX Runtime.
        input_names: of the inputs of the graph, in order; by default the names of the arguments of ``forward``.
        output_names: of the outputs of the graph, in order.
        batch_name: of the free dimension.
        metadata: entries of the file's ``metadata_props``.
        opset: version of the operators, 21 or later.

    Raises:
        ValueError: ``opset`` is below 21.
        TypeError: an argument is of another kind.
    """

    suffix = ".onnx"
    outputs = (Tensor, type(None))
    packages = ("onnx", "onnxruntime", "onnxscript")
    extra = "onnx"
    runtimes = (OnnxRuntime(), OpenVINO(), OnnxRuntimeWeb())
    profile: Profile | None = None
    input_names: Sequence[str] = ()
    output_names: Sequence[str] = ()
    batch_name: str = "batch"
    metadata: Mapping[str, str] = field(default_factory=dict)
    opset: int = 21

    def __post_init__(self) -> None:
        check_patterns(input_names=self.input_names, output_names=self.output_names)
        check_count(21, opset=self.opset)
        if self.profile is not None and not isinstance(self.profile, Profile):
            raise TypeError(f"need profile as a Profile, such as profiles.TensorRT(), got {self.profile!r}")
        if not isinstance(self.metadata, Mapping):
            raise TypeError(f"need metadata as a mapping of text, got {shown(self.metadata)}: write {{name: text}}")
        if not all(isinstance(text, str) for text in (self.batch_name, *self.metadata, *self.metadata.values())):
            raise TypeError(f"need batch_name and metadata as text, got {self.batch_name!r}, {self.metadata!r}")

    def prepare(self, module: nn.Module, example: ExampleInput) -> nn.Module:
        """The integer copy of a quantized module, with its weights in forms that ONNX knows.

        Raises:
            ValueError: a quantized module in half precision, or one trained for another runtime than ``profile``.
        """
        check_full_precision(module, self.suffix)
        if not is_quantized(module):
            if self.profile is not None:
                warnings.warn(
                    f"Onnx(profile={self.profile!r}) has no effect on a module without quantization: train it with "
                    "QATCallback(profile=...), or leave profile out",
                    stacklevel=3,
                )
            return module
        profile = self.profile or _profile_of(module)
        check_fits(module, profile)
        args, kwargs = as_arguments(example)
        symmetric = profile.symmetric_activations
        return with_blocks(lower(module, args, kwargs, integer_bias=profile.round_biases, signed=symmetric))

    def write(self, module: nn.Module, example: ExampleInput, path: Path) -> None:
        """Trace ``module``, rewrite its graph for faster kernels, and save it.

        Raises:
            ValueError: ONNX lacks one of the operations.
        """
        from onnxscript.ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass

        traced = trace(module, example)
        rewrite(traced.graph_module, give_heads)
        try:
            program = torch.onnx.export(
                traced,
                opset_version=self.opset,
                dynamo=True,
                verbose=False,
                custom_translation_table={**blocks.translations(), **rows.translations()},
            )
        except torch.onnx.OnnxExporterError as error:
            raise ValueError(
                f"need operations that ONNX has to write {path.name}, got {_lacking(error)}: write .pt2"
            ) from error
        assert program is not None  # noqa: S101  (the exporter without dynamo returns None)
        name_layers(program.model)
        ClearMetadataAndDocStringPass()(program.model)  # stack traces of all nodes are half of a small file
        broadcast_constants(program.model)
        fill_channels(program.model)
        pool_means(program.model)
        round_moves(program.model)
        keep_floats(program.model)
        pack_four_bits(program.model)
        RemoveUnusedNodesPass()(program.model)
        self._name(program.model)
        program.save(path)

    def _name(self, model: Any) -> None:
        """Give the inputs, the outputs and the free dimension of a graph their names, and the file its metadata."""
        graph = model.graph
        for argument, names, values in (
            ("input_names", self.input_names, graph.inputs),
            ("output_names", self.output_names, graph.outputs),
        ):
            if names and len(names) != len(values):
                raise ValueError(
                    f"need {argument} for {len(values)} tensors, {', '.join(value.name for value in values)}, "
                    f"got {tuple(names)}"
                )
            for value, name in zip(values, names, strict=False):
                value.name = name
        batches = [value.shape[0] for value in graph.inputs if value.shape and not isinstance(value.shape[0], int)]
        for value in (*graph.inputs, *graph.outputs, *(output for node in graph for output in node.outputs)):
            for axis, dim in enumerate(value.shape or ()):
                if dim in batches:
                    value.shape[axis] = self.batch_name
        model.metadata_props.update(self.metadata)

    def run(self, example: ExampleInput, path: Path) -> list[Tensor]:
        """Run the file in ONNX Runtime.

        Raises:
            ValueError: ONNX Runtime has no kernel for one of the operations, or does not load the file.
        """
        return self._run(OnnxRuntime(), example, path)

    def _run(self, runtime: OnnxRuntime, example: ExampleInput, path: Path) -> list[Tensor]:
        from onnxruntime.capi import onnxruntime_pybind11_state as state

        try:
            return runtime.load(path)(cpu_tensors(example))
        except (state.Fail, state.InvalidGraph, state.NotImplemented, state.RuntimeException) as error:
            raise ValueError(
                f"need operations that ONNX Runtime computes to write {path.name}, got {str(error).splitlines()[0]}; "
                "export module.float() if the module is in float64, for which it lacks convolutions, or write .pt2"
            ) from error

    def check(self, module: nn.Module, example: ExampleInput, path: Path) -> None:
        """Compare the outputs, and warn of layers that stay float and of kernels that compute something else.

        Raises:
            ValueError: an output differs by more than the tolerance, also without the integer kernels of this machine.
        """
        try:
            super().check(module, example, path)
        except ValueError as error:
            if not quantizers_of(module):
                raise
            check_near(path.name, module, example, self._run(OnnxRuntime(fused=False), example, path))
            warnings.warn(
                f"the integer kernels of ONNX Runtime on this CPU compute something else than the file: {error}. The "
                "file is right, and is kept. Kernels of x86 CPUs without VNNI saturate with 8-bit weights: train with "
                "weight_bits=7 for such CPUs",
                stacklevel=3,
            )
        if not quantizers_of(module) or not isinstance(self.profile or _profile_of(module), profiles.OnnxRuntime):
            return
        _warn_of_floats(path)


def _warn_of_floats(path: Path) -> None:
    """Name the layers of a quantized model that ONNX Runtime computes in float, with the reasons."""
    from onnxscript import ir

    model = ir.load(path)
    reasons = reasons_of(model, OnnxRuntime().operators_of(model, path).floating)
    if reasons:
        warnings.warn(float_text("ONNX Runtime", path, reasons, REMEDIES), stacklevel=4)


def _profile_of(module: nn.Module) -> Profile:
    """The runtime that a module was trained for, as far as its ranges tell."""
    quantizers = quantizers_of(module).values()
    symmetric = bool(quantizers) and all(quantizer.symmetric for quantizer in quantizers)
    return profiles.TensorRT() if symmetric else profiles.OnnxRuntime()


def _lacking(error: Exception) -> str:
    """The operation that ONNX lacks, and the first of the errors that each led to the next."""
    operation = ""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
        found = re.search(r"target=(torch\.ops\.[\w.]+)", str(error))
        operation = f"{found[1]}, " if found else operation
    return operation + line_of(error)
