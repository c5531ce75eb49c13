"""The bench: the dense model and an example input, kept until both models are measured at the end of ``fit``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_flatten, tree_map

from lightning_compress.deploy import Writer
from lightning_compress.example_inputs import ExampleInput, device_of, first_samples, input_from, on_device
from lightning_compress.macs import Macs, count_macs
from lightning_compress.report.measures.deployments import Deployment, measure_deployments
from lightning_compress.timing import Latency, measure_latencies
from lightning_compress.training.copies import uncompiled, uncompiled_copy

__all__ = ["Bench"]

_Cost = TypeVar("_Cost")

_SAMPLES = 64  # number of samples on which outputs are compared


class Bench:
    """The dense model and an example input.

    Attributes:
        sharded: whether parameters are sharded; nothing is run then.
        example: input of ``forward``; None until there is one.
        reason: the reason why multiply-accumulates or latencies are missing.
    """

    def __init__(self, module: nn.Module, example_input: ExampleInput | None) -> None:
        self.sharded = any(isinstance(parameter, DTensor) for parameter in module.parameters())
        self.example: Any = getattr(module, "example_input_array", None) if example_input is None else example_input
        self.reason = "needs example_input"
        self._samples = self.example
        self._device = device_of(module)
        self._dense: nn.Module | None = None
        self._no_dense = "not measured: sharded" if self.sharded else "not measured: resumed run"

    def keep(self, module: Any) -> None:
        """Keep a copy of the dense LightningModule on the CPU; no run is lost if it cannot be copied."""
        try:
            self._dense = uncompiled_copy(module).cpu()
        except Exception as error:  # an attribute that is a lock, a generator, or a tensor that has a gradient function
            self._no_dense = f"not measured: no copy of the module: {_line(error)}"

    def take(self, batch: Any, module: nn.Module) -> None:
        """Take the example from a training batch, if there is none, and samples if they are of the same kind."""
        given = input_from(batch, module)
        if self.example is None and _has_batch(given):
            self.example = tree_map(_cloned, first_samples(given, 1))
        if self.example is not None and _kinds(given) == _kinds(self.example):
            self._samples = on_device(first_samples(given, _SAMPLES), torch.device("cpu"))

    def macs(self, module: nn.Module) -> Macs | None:
        """Multiply-accumulates of a forward pass on the example, if it runs."""
        return None if self.sharded else self._tried(lambda example: count_macs(module, example))

    def latencies(self, module: Any) -> tuple[Latency, Latency] | None:
        """Latencies of the dense and of the compressed model, on the device of the run; both are on the CPU before."""
        if self._dense is None:
            self.reason = self._no_dense
            return None
        models = [self._dense.to(self._device), uncompiled(module).to(self._device)]
        measured = self._tried(lambda example: measure_latencies(models, example))
        module.cpu()
        self._dense.cpu()
        return (measured[0], measured[1]) if measured else None

    def deployments(self, module: nn.Module, path: Path, writer: Writer) -> tuple[Deployment, ...]:
        """Measure the file of ``module`` in the runtimes of its format, beside the dense model's."""
        if self._dense is None or self.example is None or self._samples is None:
            return ()
        example, samples = (on_device(given, torch.device("cpu")) for given in (self.example, self._samples))
        return measure_deployments(self._dense, module.cpu(), path, example, samples, writer)

    def _tried(self, cost: Callable[[ExampleInput], _Cost]) -> _Cost | None:
        if self.example is None:
            return None
        try:
            return cost(self.example)
        except Exception as error:  # no run is lost for a figure
            self.reason = f"needs example_input: {_line(error)}"
            return None


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0]


def _cloned(leaf: Any) -> Any:
    return leaf.detach().clone() if isinstance(leaf, Tensor) else leaf


def _has_batch(example: Any) -> bool:
    tensors = [leaf for leaf in tree_flatten(example)[0] if isinstance(leaf, Tensor)]
    return bool(tensors) and all(tensor.ndim for tensor in tensors)


def _kinds(example: Any) -> Any:
    """Tree of an example, and shape of a sample and dtype of each tensor."""
    leaves, tree = tree_flatten(example)
    return tree, [(leaf.shape[1:], leaf.dtype) if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves]
