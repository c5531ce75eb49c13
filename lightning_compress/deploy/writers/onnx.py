"""ONNX: a module's computation for every runtime that reads the format."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from lightning_compress.deploy.formats import ComputationWriter
from lightning_compress.deploy.onnx_passes.blocks import pack_four_bits, translations, with_blocks
from lightning_compress.deploy.onnx_passes.rewrites import broadcast_constants, fill_channels, keep_floats, pool_means
from lightning_compress.deploy.runtimes import OnnxRuntime, OpenVINO
from lightning_compress.deploy.traces import trace
from lightning_compress.example_inputs import ExampleInput
from lightning_compress.lowering.modules import is_quantized
from lightning_compress.quantization.activations.quantizers import quantizers_of
from lightning_compress.targets import listed

__all__ = ["Onnx"]


@dataclass(frozen=True)
class Onnx(ComputationWriter):
    """Writes the computation as ONNX, opset 21, with a free batch size; the check runs it in ONNX Runtime.

    A quantized module is written with integer weights and explicit ``QuantizeLinear`` and ``DequantizeLinear``, which
    runtimes fuse into integer kernels. A warning names the layers that ONNX Runtime computes in float all the same.
    """

    suffix = ".onnx"
    packages = ("onnx", "onnxruntime", "onnxscript")
    extra = "onnx"
    runtimes = (OnnxRuntime(), OpenVINO())
    integer_bias = True
    opset: ClassVar[int] = 21

    def prepare(self, module: nn.Module, example: ExampleInput) -> nn.Module:
        """The integer copy of a quantized module, with its weights in forms that ONNX knows.

        Raises:
            ValueError: a quantized module in half precision.
        """
        half = {parameter.dtype for parameter in module.parameters()} & {torch.float16, torch.bfloat16}
        if half and is_quantized(module):
            raise ValueError(
                f"need a quantized module in float32 to write .onnx, got one in {half.pop()}: train it with "
                "precision='bf16-mixed' or '32-true', or write .pt2"
            )
        return with_blocks(super().prepare(module, example))

    def write(self, module: nn.Module, example: ExampleInput, path: Path) -> None:
        """Trace ``module``, rewrite its graph for faster kernels, and save it."""
        from onnxscript.ir.passes.common import ClearMetadataAndDocStringPass, RemoveUnusedNodesPass

        with _silent():
            program = torch.onnx.export(
                trace(module, example),
                opset_version=self.opset,
                dynamo=True,
                verbose=False,
                custom_translation_table=translations(),
            )
        assert program is not None  # noqa: S101  (the exporter without dynamo returns None)
        ClearMetadataAndDocStringPass()(program.model)  # stack traces of all nodes are half of a small file
        broadcast_constants(program.model)
        fill_channels(program.model)
        pool_means(program.model)
        keep_floats(program.model)
        pack_four_bits(program.model)
        RemoveUnusedNodesPass()(program.model)
        program.save(path)

    def run(self, example: ExampleInput, path: Path) -> list[Tensor]:
        """Run the file in ONNX Runtime.

        Raises:
            ValueError: ONNX Runtime has no kernel for one of the operations.
        """
        from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as MissingKernelError

        leaves = [leaf.cpu() for leaf in pytree.tree_leaves(example) if isinstance(leaf, Tensor)]
        try:
            return OnnxRuntime().load(path)(leaves)
        except MissingKernelError as error:
            raise ValueError(
                f"need operations that ONNX Runtime computes to write {path.name}, got {error}; export module.float() "
                "if the module is in float64, for which it lacks convolutions, or write .pt2"
            ) from error

    def check(self, module: nn.Module, example: ExampleInput, path: Path) -> None:
        """Compare the outputs, and warn of layers that stay float.

        Raises:
            ValueError: an output differs by more than the tolerance.
        """
        super().check(module, example, path)
        floating = OnnxRuntime().operators(path).floating if quantizers_of(module) else ()
        if floating:
            warnings.warn(
                f"ONNX Runtime computes {len(floating)} layers of {path.name} in float, though activations are "
                f"quantized: {listed(floating)}; it needs quantizers at their input and output, which "
                "round_branches=True adds at residual branches",
                stacklevel=3,
            )


@contextmanager
def _silent() -> Iterator[None]:
    """Silence the exporter's warning about torchvision's operators where torchvision is not installed."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
