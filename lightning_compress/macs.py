"""Multiply-accumulate operations (MACs) of a forward pass, counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from lightning_compress.example_inputs import ExampleInput, call, device_of, evaluating, on_device

__all__ = ["Macs", "count_macs"]


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of matrix products, convolutions and attention; zeros count like other numbers.

    Attributes:
        total: count of a forward pass.
        layers: module name -> its count without that of its children.
        inputs: shapes of the input tensors.
    """

    total: int
    layers: dict[str, int]
    inputs: str


def count_macs(module: nn.Module, example_input: ExampleInput) -> Macs:
    """Count the multiply-accumulates of a forward pass in evaluation mode; the module is left as it was.

    Args:
        module: the module, not sharded.
        example_input: a tensor, a tuple of positional or a mapping of keyword arguments of ``forward``.

    >>> count_macs(nn.Linear(30, 20), torch.zeros(1, 30)).total
    600
    """
    example = on_device(example_input, device_of(module))
    # Compilation at this point would fix the graph before other callbacks have attached their hooks.
    eager = torch.compiler.set_stance("force_eager")
    with evaluating(module), _frozen(module), _unfused(), eager, FlopCounterMode(display=False) as counter:
        call(module, example)
    root = type(module).__name__
    macs = {
        name.removeprefix(root).removeprefix("."): sum(flops.values()) // 2
        for name, flops in counter.get_flop_counts().items()
        if name != "Global"
    }
    layers = {name: count for name, count in _own(macs).items() if count > 0}
    return Macs(counter.get_total_flops() // 2, layers, _shapes(example))


@contextmanager
def _frozen(module: nn.Module) -> Iterator[None]:
    """No parameter requires a gradient: a module that returns a view of one would break the counter."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    try:
        for parameter in trained:
            parameter.requires_grad = False
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad = True


@contextmanager
def _unfused() -> Iterator[None]:
    """Run recurrent and transformer layers step by step: the counter does not see into their fused kernels."""
    backends: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    enabled = [backend.enabled for backend in backends]
    fast = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        for backend in backends:
            backend.enabled = False
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for backend, was in zip(backends, enabled, strict=True):
            backend.enabled = was


def _own(macs: Mapping[str, int]) -> dict[str, int]:
    """Counts of modules minus those of the modules in them; a list of modules is never called and has no count."""
    own = dict(macs)
    for name, count in macs.items():
        around, outer = name, None
        while around and outer is None:
            around = around.rpartition(".")[0]
            outer = around if around in macs else None
        if outer is not None:
            own[outer] -= count
    return own


def _shapes(example: Any) -> str:
    if isinstance(example, Tensor):
        return " x ".join(map(str, example.shape)) or "scalar"
    values = example.values() if isinstance(example, Mapping) else example if isinstance(example, tuple | list) else ()
    return ", ".join(shapes for value in values if (shapes := _shapes(value)))
