"""Deployments: an exported file in the runtimes of this machine, beside the dense model."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from lightning_compress.deploy import Writer, export
from lightning_compress.deploy.checks import cpu_tensors, difference, largest
from lightning_compress.deploy.runtimes import Run, Runtime, installed
from lightning_compress.example_inputs import ExampleInput, call, evaluating, tensors_in
from lightning_compress.metrics import Agreement
from lightning_compress.timing import Latency, time_in_turns

__all__ = ["Deployment", "measure_deployments"]


@dataclass(frozen=True)
class Deployment:
    """One file in one runtime, beside the dense model in the same runtime.

    Attributes:
        file: name of the file.
        runtime: name of the runtime.
        bytes: size of the file.
        dense_bytes: size of the dense model's file.
        integer: number of convolutions and matrix products that the runtime computes in integers.
        floating: names of those that it computes in float.
        latencies: of the dense model and of the file on the example, in turns, on one thread; None if they say nothing
            of the device.
        batch_latencies: the same on all samples at once.
        samples: number of samples; outputs are compared on them.
        agreement: fraction of the samples that get the same class as in PyTorch, in [0, 1]; None if the model is not a
            classifier.
        difference: mean distance from PyTorch's outputs, as a fraction of the largest output.
        memory: bytes that the device reserves besides the file; None if the runtime does not say.
    """

    file: str
    runtime: str
    bytes: int
    dense_bytes: int
    integer: int
    floating: tuple[str, ...]
    latencies: tuple[Latency, Latency] | None
    batch_latencies: tuple[Latency, Latency] | None
    samples: int
    agreement: float | None
    difference: float
    memory: int | None = None


def measure_deployments(
    dense: nn.Module, module: nn.Module, path: Path, example: ExampleInput, samples: ExampleInput, writer: Writer
) -> tuple[Deployment, ...]:
    """Run an exported file in every installed runtime of its format; a warning names a runtime that fails.

    Args:
        dense: the model before compression, on the CPU.
        module: the compressed model, on the CPU.
        path: the file of ``module``.
        example: input on which latency is measured.
        samples: inputs on which outputs are compared.
        writer: the writer of the file; the dense model is exported by it too.
    """
    expected = _outputs(module, samples)
    with TemporaryDirectory() as folder:
        other = export(copy.deepcopy(dense), Path(folder) / path.name, example, writer=writer)
        tried = [
            _tried(runtime, other, path, tensors_in(example), tensors_in(samples), expected)
            for runtime in installed(writer.runtimes)
        ]
    return tuple(found for found in tried if found is not None)


def _tried(runtime: Runtime, other: Path, path: Path, *tensors: list[Tensor]) -> Deployment | None:
    try:
        return _measured(runtime, other, path, *tensors)
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        warnings.warn(f"{runtime.name} does not run {path.name}: {reason}", stacklevel=3)
        return None


def _measured(
    runtime: Runtime, other: Path, path: Path, example: list[Tensor], samples: list[Tensor], expected: list[Tensor]
) -> Deployment:
    runs, operators = (runtime.load(other), runtime.load(path)), runtime.operators(path)
    given = runs[1](samples)
    return Deployment(
        file=path.name,
        runtime=runtime.name,
        bytes=path.stat().st_size,
        dense_bytes=other.stat().st_size,
        integer=operators.layers,
        floating=operators.floating,
        latencies=_latencies(runs, example) if runtime.timed else None,
        batch_latencies=_latencies(runs, samples) if runtime.timed else None,
        samples=len(expected[0]) if expected and expected[0].ndim else 1,
        agreement=_agreement(expected, given),
        difference=_difference(expected, given),
        memory=runtime.memory(path),
    )


def _latencies(runs: tuple[Run, Run], inputs: list[Tensor]) -> tuple[Latency, Latency]:
    before, after = time_in_turns([partial(run, inputs) for run in runs], "cpu")
    return before, after


def _outputs(module: nn.Module, samples: ExampleInput) -> list[Tensor]:
    with evaluating(module):
        return cpu_tensors(call(module, samples))


def _agreement(expected: Sequence[Tensor], given: Sequence[Tensor]) -> float | None:
    if len(expected) != 1 or expected[0].ndim != 2 or expected[0].shape[1] < 2:
        return None
    agreement = Agreement(sync_on_compute=False)  # the first process alone measures files
    agreement.update(given[0], expected[0])
    return agreement.compute().item()


def _difference(expected: Sequence[Tensor], given: Sequence[Tensor]) -> float:
    pairs = [(a.double().flatten(), b.double().flatten()) for a, b in zip(expected, given, strict=True)]
    want, have = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    return difference(want, have).mean().item() / max(largest(want), torch.finfo(torch.float32).tiny)
