"""Formats: the interface of the writers, of which each kind of file has one."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lightning_compress.deploy.checks import check_equal, check_near
from lightning_compress.deploy.runtimes import Runtime
from lightning_compress.drafts import check_replaceable
from lightning_compress.example_inputs import ExampleInput, as_arguments, device_of, on_device
from lightning_compress.lowering.modules import is_quantized, lower
from lightning_compress.messages import listed_by_reason

__all__ = ["ComputationWriter", "Writer", "check_full_precision", "float_text", "on_cpu", "size_on_disk"]


class Writer(ABC):
    """Writes one kind of file, and checks it. Options of a format are fields of its writer, all with defaults.

    Attributes:
        suffix: of the files, with its dot.
        folder: whether it writes a folder instead of a file; one without a suffix is asked for by ``writer=``.
        entries: patterns of the names in such a folder. A folder that holds others is not replaced.
        needs_example: whether the format holds a computation, for which ``forward`` has to run.
        packages: names of the packages that are imported to write, check and run a file.
        extra: extra of this package that installs them.
        runtimes: programs that run such a file on this machine, for the report.
        outputs: kinds of values that ``forward`` may return, in any nesting.
    """

    suffix: ClassVar[str]
    folder: ClassVar[bool] = False
    entries: ClassVar[tuple[str, ...]] = ()
    needs_example: ClassVar[bool] = True
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    runtimes: ClassVar[tuple[Runtime, ...]] = ()
    outputs: ClassVar[tuple[type, ...]] = (Tensor,)

    def require(self) -> None:
        """Import the packages that the format needs.

        Raises:
            ImportError: a package is not installed; the error says how to install it.
        """
        try:
            for package in self.packages:
                import_module(package)
        except ImportError as error:
            kind = self.suffix or repr(self)
            raise ImportError(
                f"need {error.name} to write {kind}: pip install 'lightning-compress[{self.extra}]'"
            ) from error

    def check_place(self, path: Path) -> None:
        """Refuse a path at which something stands that an export must not replace.

        Raises:
            IsADirectoryError: the format is a file, and a folder stands there.
            OSError: the format is a folder, and something else than an earlier export stands there.
        """
        if self.folder:
            check_replaceable(path, self.entries)
        elif path.is_dir():
            raise IsADirectoryError(f"need path as that of a file, got {str(path)!r}, which is a folder")

    def prepare(self, module: nn.Module, example: Any) -> nn.Module:
        """The module to write in place of ``module``, which stays as it is; by default ``module`` itself.

        Raises:
            ValueError: the format cannot hold this module.
        """
        return module

    @abstractmethod
    def write(self, module: nn.Module, example: Any, path: Path) -> None:
        """Write ``module`` to ``path``.

        Args:
            module: the result of :meth:`prepare`, in evaluation mode.
            example: input of ``forward``, on the device of the module; None where ``needs_example`` is False.
            path: a new file.
        """

    @abstractmethod
    def check(self, module: nn.Module, example: Any, path: Path) -> None:
        """Load the file and compare it with the trained module.

        Raises:
            ValueError: the file differs from the module.
        """


class ComputationWriter(Writer):
    """Writes a computation. A quantized module is lowered to integers first; the check runs the file."""

    def prepare(self, module: nn.Module, example: ExampleInput) -> nn.Module:
        """The integer copy of a quantized module; any other module itself."""
        if not is_quantized(module):
            return module
        args, kwargs = as_arguments(example)
        return lower(module, args, kwargs)

    @abstractmethod
    def run(self, example: ExampleInput, path: Path) -> list[Tensor]:
        """Load the file, run it on the example, and return its output tensors on the CPU, in order."""

    def check(self, module: nn.Module, example: ExampleInput, path: Path) -> None:
        """Run the file and compare its outputs with those of the module.

        Raises:
            ValueError: an output differs by more than the tolerance.
        """
        check = check_near if is_quantized(module) else check_equal
        check(path.name, module, example, self.run(example, path))


def check_full_precision(module: nn.Module, suffix: str) -> None:
    """Refuse a quantized module in half precision.

    Raises:
        ValueError: a parameter of a quantized module is in half precision.
    """
    half = {parameter.dtype for parameter in module.parameters()} & {torch.float16, torch.bfloat16}
    if half and is_quantized(module):
        raise ValueError(
            f"need a quantized module in float32 to write {suffix}, got one in {half.pop()}: train it with "
            "precision='bf16-mixed' or '32-true', or write .pt2"
        )


def on_cpu(module: nn.Module, example: ExampleInput) -> tuple[nn.Module, ExampleInput]:
    """A module and its example on the CPU: the same, or copies of what is elsewhere."""
    cpu = torch.device("cpu")
    if device_of(module) == cpu:
        return module, example
    return copy.deepcopy(module).to(cpu), on_device(example, cpu)


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def float_text(runtime: str, path: Path, reasons: Mapping[str, str], remedies: Mapping[str, str]) -> str:
    """A warning that a runtime computes layers of a quantized model in float, with the reasons and what helps.

    Args:
        runtime: its name.
        path: the file.
        reasons: name of each such layer -> the reason.
        remedies: reason -> what helps, for those against which something does.

    >>> print(float_text("LiteRT", Path("a.tflite"), {"stem": "no scale"}, {"no scale": "set it"}))
    LiteRT computes layers of a.tflite in float, though activations are quantized: no scale: stem. To mend it, set it
    """
    helps = dict.fromkeys(remedies[reason] for reason in reasons.values() if reason in remedies)
    remedy = f". To mend it, {'; '.join(helps)}" if helps else ""
    return (
        f"{runtime} computes layers of {path.name} in float, though activations are quantized: "
        f"{'; '.join(listed_by_reason(reasons))}{remedy}"
    )
