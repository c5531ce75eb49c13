"""The bench: the dense model and an example input, kept until both models are measured at the end of ``fit``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_flatten

from lightning_compress.adapters import merge
from lightning_compress.deploy import Writer
from lightning_compress.example_inputs import (
    ExampleInput,
    device_of,
    example_in,
    first_samples,
    line_of,
    on_device,
    readings,
    shapes_of,
    tensors_in,
)
from lightning_compress.macs import Macs
from lightning_compress.report.measures.deployments import Deployment, measure_deployments
from lightning_compress.report.measures.profiles import shipped_macs
from lightning_compress.timing import Latency, measure_latencies
from lightning_compress.training.copies import uncompiled, uncompiled_copy

__all__ = ["Bench"]

_Result = TypeVar("_Result")

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
        """Keep a copy of the dense LightningModule on the CPU, with merged adapters; no run is lost if that fails."""
        try:
            self._dense = merge(uncompiled_copy(module).cpu())
        except Exception as error:  # an attribute that is a lock, a generator, or a tensor that has a gradient function
            self._no_dense = f"not measured: no copy of the module: {line_of(error)}"

    def take(self, batch: Any, module: nn.Module) -> None:
        """Take the example from a training batch, if there is none, and samples if they are of the same kind."""
        if self.example is None:
            try:
                self.example = _example_of(batch, module)
            except ValueError as error:  # no run is lost for a figure
                self.reason = str(error)
        if self.example is not None:
            same = [given for given in readings(batch, module) if _kinds(given) == _kinds(self.example)]
            if same:
                self._samples = on_device(first_samples(same[0], _SAMPLES), torch.device("cpu"))

    def macs(self, module: nn.Module) -> Macs | None:
        """Multiply-accumulates of a forward pass on the example, if it runs; adapters are merged."""
        return None if self.sharded or self.example is None else self._tried(lambda: shipped_macs(module, self.example))

    def latencies(self, module: Any) -> tuple[Latency, Latency] | None:
        """Latencies of the dense and of the compressed model, on the device of the run; both are on the CPU before."""
        if self._dense is None:
            self.reason = self._no_dense
            return None
        if self.example is None:
            return None
        models = [self._dense.to(self._device), uncompiled(module).to(self._device)]
        measured = self._tried(lambda: measure_latencies(models, self.example))
        module.cpu()
        self._dense.cpu()
        return (measured[0], measured[1]) if measured else None

    def deployments(self, module: nn.Module, path: Path, writer: Writer) -> tuple[Deployment, ...]:
        """Measure the file of ``module`` in the runtimes of its format, beside the dense model's."""
        if self._dense is None or self.example is None or self._samples is None:
            return ()
        example, samples = (on_device(given, torch.device("cpu")) for given in (self.example, self._samples))
        return measure_deployments(self._dense, module.cpu(), path, example, samples, writer)

    def _tried(self, attempt: Callable[[], _Result]) -> _Result | None:
        try:
            return attempt()
        except Exception as error:  # no run is lost for a figure
            self.reason = f"needs example_input: {line_of(error)}"
            return None


def _example_of(batch: Any, module: nn.Module) -> ExampleInput:
    """The first sample of a batch, as input of ``module``."""
    example: ExampleInput = first_samples(example_in(batch, module), 1)
    tensors = tensors_in(example)
    if not tensors or not all(tensor.ndim for tensor in tensors):
        raise ValueError(
            f"need a training batch of tensors, whose first dimension is the batch, got {shapes_of(example)}: pass "
            "example_input"
        )
    cloned: ExampleInput = apply_to_collection(
        example, Tensor, lambda tensor: tensor.detach().clone(), allow_frozen=True
    )
    return cloned


def _kinds(example: Any) -> Any:
    """Tree of an example, and shape of a sample and dtype of each tensor."""
    leaves, tree = tree_flatten(example)
    return tree, [(leaf.shape[1:], leaf.dtype) if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves]
