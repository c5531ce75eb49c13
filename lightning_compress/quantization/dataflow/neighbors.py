"""Neighbors of a layer: the normalisation that takes what it gives, the quantizer that its input has passed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_compress.quantization.activations.quantizers import Place
from lightning_compress.quantization.dataflow.kinds import LAYER_OPERATIONS, input_first, is_plain
from lightning_compress.quantization.dataflow.placement import reused_modules, sources
from lightning_compress.quantization.dataflow.traces import Trace
from lightning_compress.targets import is_transposed

__all__ = ["norms_behind", "quantizers_before"]


def norms_behind(module: nn.Module, trace: Trace) -> dict[str, str]:
    """Layer -> the batch normalisation that alone reads what the layer gives.

    Args:
        module: the model.
        trace: of its forward pass.
    """
    reused, bare = reused_modules(trace), _bare_layers(module, trace)
    layers = {call.output: call.module for call in trace.calls if call.module in bare - reused}
    readers = Counter(value for operation in trace.operations for value in operation.inputs)
    readers.update(trace.escaped)
    return {
        layers[call.input]: call.module
        for call in trace.calls
        if call.input in layers and readers[call.input] == 1 and call.module not in reused
        if isinstance(module.get_submodule(call.module), _BatchNorm)
    }


def quantizers_before(module: nn.Module, trace: Trace, places: Collection[Place]) -> dict[str, Place]:
    """Layer -> where the quantizer sits that its input has passed last.

    Args:
        module: the model.
        trace: of it, without quantizers.
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
    passed |= {**within, **{place.module: place for place in places if place.side == "input"}}
    return {layer: passed[layer] for layer in _bare_layers(module, trace) & passed.keys()}


def _bare_layers(module: nn.Module, trace: Trace) -> set[str]:
    """Layers that do nothing but their operation: on what they take, with their weight and bias, giving what it gives.

    A layer with a ``forward`` of its own may scale, pad or normalise besides: nothing can be taken into its weight and
    bias, and its integers cannot be added up in its stead.
    """
    calls, source = {call.module: call for call in trace.calls}, sources(trace)
    return {
        operation.module
        for operation in map(input_first, trace.operations)
        if operation.name in LAYER_OPERATIONS and operation.module in calls
        if is_plain(type(layer := module.get_submodule(operation.module)).forward, transposed=is_transposed(layer))
        if source(operation.inputs[0]) == source(calls[operation.module].input)
    }
