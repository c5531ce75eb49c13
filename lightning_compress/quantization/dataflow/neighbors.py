"""Neighbors of a layer: the batch normalization after it, and the quantizer before it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from lightning_compress.quantization.activations.quantizers import Place
from lightning_compress.quantization.dataflow.flow import Dataflow
from lightning_compress.quantization.dataflow.kinds import has_integer_kernel
from lightning_compress.quantization.dataflow.readers import sole_readers

__all__ = ["norms_after", "quantizers_before"]

_NORMALIZATIONS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


def norms_after(module: nn.Module, flow: Dataflow) -> dict[str, str]:
    """Layer -> the batch normalization that is the only reader of its output.

    A subclass with a ``forward`` of its own may also apply an activation: it is none.

    Args:
        module: the model.
        flow: of its forward pass.
    """
    calls = flow.trace.calls
    # A layer of one's own without a bias cannot take that of a folded normalization.
    biased = {
        name
        for name, operation in sole_readers(flow).items()
        if has_integer_kernel(module.get_submodule(name)) or len(operation.inputs) == 3
    }
    layers = {call.output: call.module for call in calls if call.module in biased - flow.reused}
    return {
        layers[call.input]: call.module
        for call in calls
        if call.input in layers and call.module not in flow.reused
        if flow.only_consumer(call.input) is not None and call.input not in flow.trace.escaped
        if type(module.get_submodule(call.module)).forward in _NORMALIZATIONS
    }


def quantizers_before(module: nn.Module, flow: Dataflow, places: Collection[Place]) -> dict[str, Place]:
    """Layer -> place of the last quantizer that its input has passed.

    Args:
        module: the model.
        flow: of its forward pass, without quantizers.
        places: of its quantizers.
    """
    calls = flow.trace.calls
    # Later rules win: the place on the layer's own input is the last that its input passes.
    produced = {flow.source(call.output): place for call in calls if (place := Place(call.module, "output")) in places}
    before = {call.module: produced[source] for call in calls if (source := flow.source(call.input)) in produced}
    entered: dict[int, list[Place]] = defaultdict(list)
    for call in calls:
        if (place := Place(call.module, "input")) in places:
            entered[flow.source(call.input)].append(place)
    for call in calls:
        for place in entered.get(flow.source(call.input), ()):
            if call.module.startswith(f"{place.module}." if place.module else ""):
                before[call.module] = place
    before.update({place.module: place for place in places if place.side == "input"})
    of_all_uses = {layer for layer, place in before.items() if layer not in flow.reused or place.module == layer}
    return {layer: before[layer] for layer in sole_readers(flow).keys() & of_all_uses}
