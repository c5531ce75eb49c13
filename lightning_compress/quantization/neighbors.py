"""Neighbors of a layer: the normalisation that takes what it gives, the quantizer that its input has passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_compress.quantization.activations import Place
from lightning_compress.quantization.placement import has_integer_kernel, reused_modules, sources
from lightning_compress.quantization.traces import Trace

__all__ = ["norms_behind", "quantizers_before"]


def norms_behind(module: nn.Module, trace: Trace) -> dict[str, str]:
    """Layer -> the batch normalisation that alone reads what the layer gives.

    Args:
        module: the model.
        trace: of its forward pass.
    """
    reused = reused_modules(trace)
    kinds = {call.module: module.get_submodule(call.module) for call in trace.calls if call.module not in reused}
    integer = {name for name, layer in kinds.items() if has_integer_kernel(layer)}
    layers = {call.output: call.module for call in trace.calls if call.module in integer}
    readers = Counter(value for operation in trace.operations for value in operation.inputs)
    readers.update(trace.escaped)
    return {
        layers[call.input]: call.module
        for call in trace.calls
        if isinstance(kinds.get(call.module), _BatchNorm) and call.input in layers and readers[call.input] == 1
    }


def quantizers_before(trace: Trace, places: Collection[Place]) -> dict[str, Place]:
    """Module -> where the quantizer sits that its input has passed last.

    Args:
        trace: of the model, without quantizers.
        places: where its quantizers sit.
    """
    source = sources(trace)
    values = {
        source(call.output): Place(call.module, "output")
        for call in trace.calls
        if Place(call.module, "output") in places
    }
    passed = {call.module: values[source(call.input)] for call in trace.calls if source(call.input) in values}
    entered = [
        (call.module, source(call.input), Place(call.module, "input"))
        for call in trace.calls
        if Place(call.module, "input") in places
    ]
    within = {
        call.module: place
        for call in trace.calls
        for outer, value, place in entered
        if source(call.input) == value and call.module.startswith(f"{outer}." if outer else "")
    }
    return {**passed, **within, **{place.module: place for place in places if place.side == "input"}}
