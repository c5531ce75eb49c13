"""The interface of the runtimes, and counts of the operators that they compute in integers."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn

from lightning_compress.arguments import signature_repr
from lightning_compress.example_inputs import ExampleInput, on_device, tensors_in

__all__ = ["IntegerOperators", "Run", "Runtime", "counted", "in_parts", "installed"]

Run: TypeAlias = Callable[[Sequence[Tensor]], list[Tensor]]
"""A loaded file: input tensors of the model, in order -> its output tensors."""


@dataclass(frozen=True)
class IntegerOperators:
    """The operators of a file that a runtime computes in integers, and those that stay float.

    Attributes:
        fused: integer operator -> number of its nodes.
        floating: names of the convolutions and matrix products that stay float.
    """

    fused: dict[str, int]
    floating: tuple[str, ...]

    @property
    def layers(self) -> int:
        """Number of fused convolutions and matrix products.

        >>> IntegerOperators({"QLinearConv": 9, "QLinearAdd": 3, "QGemm": 1}, ()).layers
        10
        """
        products = ("Conv", "Gemm", "MatMul", "FullyConnected")
        return sum(count for kind, count in self.fused.items() if any(product in kind for product in products))


class Runtime(ABC):
    """One runtime.

    Attributes:
        name: shown in tables.
        package: name of the package that has it.
        timed: whether its latency on this machine says something of the device.
    """

    name: ClassVar[str]
    package: ClassVar[str]
    timed: ClassVar[bool] = True

    def __repr__(self) -> str:
        return signature_repr(self)

    def __call__(self, module: nn.Module, example_input: ExampleInput) -> Callable[[], object]:
        """A function that runs ``module`` once, on ``example_input``, from a file in this runtime.

        ``ChannelPruningCallback(latency=..., runtime=...)`` measures latencies by it.

        Args:
            module: the model; a copy of it on the CPU is exported.
            example_input: input of ``forward``.

        Raises:
            ImportError: the runtime is not installed.
            ValueError: no writer of this package names the runtime, or the model cannot be exported to a file of it.
        """
        # The writers import the runtimes, by which they check their files.
        from lightning_compress.deploy.export import export, find_writers

        kinds = {suffix: [type(runtime) for runtime in writer.runtimes] for suffix, writer in find_writers().items()}
        suffixes = [suffix for suffix, runtimes in kinds.items() if type(self) in runtimes]
        if not suffixes:
            raise ValueError(
                f"need a runtime that a writer of this package names, got {self!r}: give runtime= a function (module, "
                "example) -> function that runs the model once"
            )
        example = on_device(example_input, torch.device("cpu"))
        with TemporaryDirectory() as folder:
            path = export(copy.deepcopy(module).cpu(), Path(folder) / f"model{suffixes[0]}", example)
            run = self.load(path)
        return partial(run, tensors_in(example))

    def present(self) -> bool:
        """Whether the runtime is installed."""
        return find_spec(self.package) is not None

    @abstractmethod
    def load(self, path: Path) -> Run:
        """Load a file, to run it on one thread in its own precision."""

    @abstractmethod
    def operators(self, path: Path) -> IntegerOperators:
        """Count the operators of a file as the runtime computes them on this machine's CPU."""

    def memory(self, path: Path) -> int | None:
        """Bytes of memory that the device reserves besides the file; None if the runtime does not say."""
        return None


def installed(runtimes: Iterable[Runtime]) -> list[Runtime]:
    """The runtimes that are installed.

    >>> installed([])
    []
    """
    return [runtime for runtime in runtimes if runtime.present()]


def counted(
    kinds: Iterable[tuple[str, str]], integer: Callable[[str], bool], floating: Callable[[str], bool]
) -> IntegerOperators:
    """Sort operators into integer and float ones.

    Args:
        kinds: kind and name of each operator.
        integer: whether a kind computes in integers.
        floating: whether a kind is a convolution or matrix product that computes in float.

    >>> counted([("QGemm", "fc"), ("Conv", "stem")], lambda kind: kind[0] == "Q", lambda kind: kind == "Conv")
    IntegerOperators(fused={'QGemm': 1}, floating=('stem',))
    """
    kinds = list(kinds)
    fused = Counter(kind for kind, _ in kinds if integer(kind))
    return IntegerOperators(dict(fused), tuple(name for kind, name in kinds if floating(kind)))


def in_parts(run: Run, most: int) -> Run:
    """A run that takes any number of samples, by one that takes at most so many.

    >>> in_parts(lambda inputs: [inputs[0] + len(inputs[0])], 2)([torch.zeros(3)])
    [tensor([2., 2., 1.])]
    """

    def whole(inputs: Sequence[Tensor]) -> list[Tensor]:
        count = max((len(tensor) for tensor in inputs if tensor.ndim), default=1)
        starts = range(0, max(count, 1), most)
        parts = [run([x[i : i + most].contiguous() if x.ndim else x for x in inputs]) for i in starts]
        return parts[0] if len(parts) == 1 else [torch.cat(outputs) for outputs in zip(*parts, strict=True)]

    return whole
