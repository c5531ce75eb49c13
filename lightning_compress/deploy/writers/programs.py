"""Programs: the ``.pt2`` file, which torch itself runs."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import torch
import torch._inductor
from torch import Tensor, nn
from torch._inductor.runtime.cache_dir_utils import cache_dir
from torch._ops import OpOverload
from torch.export import ExportedProgram
from torch.fx import GraphModule

from lightning_compress.arguments import check_flag
from lightning_compress.deploy.checks import cpu_tensors
from lightning_compress.deploy.formats import ComputationWriter
from lightning_compress.deploy.traces import trace, without_origin
from lightning_compress.example_inputs import ExampleInput, as_arguments
from lightning_compress.lowering.modules import is_quantized, lower, pad_single_channels
from lightning_compress.messages import listed

__all__ = ["Program"]


_ROUNDING = "quantized_decomposed."  # start of the names of operators that compilers turn into integer kernels
_PRINT_MISSING = """
import functools, sys, torch
for name in sys.argv[1:]:
    try:
        functools.reduce(getattr, name.split("."), torch.ops)
    except AttributeError:
        print(name)
"""


@dataclass(frozen=True)
class Program(ComputationWriter):
    """Writes the computation as a :class:`torch.export.ExportedProgram`; the check loads the file and runs it.

    The file holds zeros as its example, and neither paths nor lines of source code. A quantized module is written with
    int8 weights. Its arithmetic is spelled out, so that torch alone loads the file. A warning names operators of other
    packages, which a program has to import first.

    Args:
        compiled: write machine code instead, by AOTInductor with constant weights, for
            ``torch._inductor.aoti_load_package``. Torch runs no other file faster. Writing it takes a C++ compiler, and
            it runs only on this kind of processor and with this version of torch.
        fusible: write the quantize and dequantize operations that ``torch.compile`` and ExecuTorch turn into integer
            kernels. A program that loads the file has to ``import torch.ao.quantization.fx._decomposed`` first.

    Raises:
        TypeError: ``compiled`` or ``fusible`` is neither True nor False.
    """

    suffix = ".pt2"
    outputs = (Tensor, type(None), int, float)
    compiled: bool = False
    fusible: bool = False

    def __post_init__(self) -> None:
        check_flag(compiled=self.compiled)
        check_flag(fusible=self.fusible)

    def prepare(self, module: nn.Module, example: ExampleInput) -> nn.Module:
        """The integer copy of a quantized module; any other module itself."""
        if not is_quantized(module):
            return module
        args, kwargs = as_arguments(example)
        prepared = lower(module, args, kwargs, explicit=self.compiled or self.fusible)
        if self.compiled:
            pad_single_channels(prepared)
        return prepared

    def write(self, module: nn.Module, example: ExampleInput, path: Path) -> None:
        """Trace ``module``, and save or compile the trace."""
        program = without_origin(trace(module, example))
        if self.compiled:
            torch._inductor.aoti_compile_and_package(
                program, package_path=str(path), inductor_configs={"freezing": True}
            )
            _remove_places(path)
        else:
            torch.export.save(program, path)
        if missing := [name for name in _missing(program) if not (self.compiled and name.startswith(_ROUNDING))]:
            warnings.warn(_missing_text(path, missing), stacklevel=3)

    def run(self, example: ExampleInput, path: Path) -> list[Tensor]:
        """Run the file in torch."""
        args, kwargs = as_arguments(example)
        program: Any = (
            torch._inductor.aoti_load_package(str(path)) if self.compiled else torch.export.load(path).module()
        )
        return cpu_tensors(program(*args, **kwargs))


def _missing(program: ExportedProgram) -> list[str]:
    """Names of the operators in a program that a process which imports torch alone does not have."""
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, GraphModule)]
    targets = {node.target for graph in graphs for node in graph.nodes if isinstance(node.target, OpOverload)}
    names = sorted({str(target) for target in targets if target.namespace != "aten"})
    if not names:
        return []
    command = [sys.executable, "-c", _PRINT_MISSING, *names]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()  # noqa: S603


def _missing_text(path: Path, names: list[str]) -> str:
    known = all(name.startswith(_ROUNDING) for name in names)
    remedy = "write 'import torch.ao.quantization.fx._decomposed'" if known else "import the packages that define them"
    return f"{path.name} needs operators that torch alone does not have, {listed(names)}: {remedy} before loading it"


def _remove_places(path: Path) -> None:
    """Remove the folders of torch and of its cache from a compiled file, and the sources, which name the compiler."""
    folders = [os.fsencode(folder) for folder in (Path(torch.__file__).parent, cache_dir())]
    with ZipFile(path) as package:
        entries = {entry: package.read(entry) for entry in package.infolist() if not entry.filename.endswith(".cpp")}
    with ZipFile(path, "w") as package:
        for entry, content in entries.items():
            for folder in folders:
                content = content.replace(folder, b"." * len(folder))  # offsets in the library stay
            package.writestr(entry, content)
