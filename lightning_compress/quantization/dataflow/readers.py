"""Readers: the operations that use the weight of a module as the weight of a linear layer or convolution.

They say which modules are such layers, whatever their classes are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from torch import nn

from lightning_compress.quantization.dataflow.flow import Dataflow
from lightning_compress.quantization.dataflow.kinds import LAYER_OPERATIONS, has_integer_kernel, input_first, is_plain
from lightning_compress.quantization.dataflow.traces import Call, Operation
from lightning_compress.targets import is_layer, is_transposed

__all__ = ["possible_layers", "sole_readers", "weight_readers"]


def possible_layers(model: nn.Module, parameters: Iterable[nn.Parameter]) -> list[str]:
    """Names of the modules that may turn out to be layers with integer kernels, with one of the parameters as weight.

    They are linear layers and convolutions, and modules of classes that torch does not define.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Embedding(2, 2), nn.Linear(2, 2))
    >>> possible_layers(net, [net[0].weight, net[1].weight])
    ['0']
    """
    wanted = {id(parameter) for parameter in parameters}
    return [
        name
        for name, module in model.named_modules()
        if id(module._parameters.get("weight")) in wanted and (has_integer_kernel(module) or not is_layer(module))
    ]


def weight_readers(flow: Dataflow, name: str, targets: Collection[str]) -> list[Operation]:
    """The operations that read the weight of a module as that of a layer, with inputs ``(input, weight, bias)``.

    Args:
        flow: of the model.
        name: of the module.
        targets: names of modules that may be layers; an operation inside of one belongs to it, though its weight may be
            tied to another's.
    """
    transposed = is_transposed(flow.trace.module.get_submodule(name))
    readers = (
        input_first(operation)
        for value in sorted(flow.trace.weights[name])
        for operation in flow.consumers(value)
        if operation.name in LAYER_OPERATIONS and (operation.name == "addmm") <= transposed
        if operation.module == name or operation.module not in targets
    )
    return [operation for operation in readers if operation.inputs[1] in flow.trace.weights[name]]


def sole_readers(flow: Dataflow) -> dict[str, Operation]:
    """Layer -> the operation that is all it does, on its input, with its weight and bias.

    A layer with a ``forward`` of its own may also scale, pad or normalize. Then no normalization can be folded into its
    weight and bias, and an integer sum cannot replace its output.
    """
    called = {call.module for call in flow.trace.calls}
    return {
        call.module: operation
        for call in flow.trace.calls
        for operation in weight_readers(flow, call.module, called)
        if flow.source(operation.inputs[0]) == flow.source(call.input)
        if _is_of_torch(flow, call.module) or _is_linear(flow, call, operation)
    }


def _is_of_torch(flow: Dataflow, name: str) -> bool:
    layer = flow.trace.module.get_submodule(name)
    return is_plain(type(layer).forward, transposed=is_transposed(layer))


def _is_linear(flow: Dataflow, call: Call, operation: Operation) -> bool:
    """Whether a module of one's own returns what the linear operation on its weight and bias gives."""
    of_bias = flow.trace.biases[call.module]
    returned = flow.source(call.output) == operation.output
    return operation.name == "linear" and returned and of_bias.issuperset(operation.inputs[2:])
