"""Programs: the ``.pt2`` file, which torch itself runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch._inductor
from torch import Tensor, nn

from lightning_compress.arguments import check_flag
from lightning_compress.deploy.checks import cpu_tensors
from lightning_compress.deploy.formats import ComputationWriter
from lightning_compress.deploy.traces import trace
from lightning_compress.example_inputs import ExampleInput, as_arguments
from lightning_compress.lowering.modules import is_quantized, pad_single_channels

__all__ = ["Program"]


@dataclass(frozen=True)
class Program(ComputationWriter):
    """Writes the computation as a :class:`torch.export.ExportedProgram`; the check loads the file and runs it.

    Args:
        compiled: write machine code instead, by AOTInductor with constant weights, for
            ``torch._inductor.aoti_load_package``. Torch runs no other file faster. Writing it takes a C++ compiler, and
            it runs only on this kind of processor and with this version of torch.

    Raises:
        TypeError: ``compiled`` is neither True nor False.
    """

    suffix = ".pt2"
    compiled: bool = False

    def __post_init__(self) -> None:
        check_flag(compiled=self.compiled)

    def prepare(self, module: nn.Module, example: ExampleInput) -> nn.Module:
        """The integer copy of a quantized module; any other module itself."""
        prepared = super().prepare(module, example)
        if self.compiled and is_quantized(module):
            pad_single_channels(prepared)
        return prepared

    def write(self, module: nn.Module, example: ExampleInput, path: Path) -> None:
        """Trace ``module``, and save or compile the trace."""
        program = trace(module, example)
        if self.compiled:
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs={"freezing": True}
            )
        else:
            torch.export.save(program, path)

    def run(self, example: ExampleInput, path: Path) -> list[Tensor]:
        """Run the file in torch."""
        args, kwargs = as_arguments(example)
        program: Any = (
            torch._inductor.aoti_load_package(str(path)) if self.compiled else torch.export.load(path).module()
        )
        return cpu_tensors(program(*args, **kwargs))
