"""Graphs with rounding in them, as a lowered module has them, and what passes make of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import torch
import torch.ao.quantization.fx._decomposed  # registers torch.ops.quantized_decomposed
from torch import Tensor, nn
from torch.fx import GraphModule

from lightning_compress.deploy.graph_passes import Pass, rewritten

OPS = torch.ops.quantized_decomposed
FORM = (0.1, 100, 0, 255, torch.uint8)
OTHER = (0.2, 30, 0, 255, torch.uint8)


def rounded(x: Tensor, form: tuple = FORM) -> Tensor:
    return OPS.dequantize_per_tensor(OPS.quantize_per_tensor(x, *form), *form)


class Function(nn.Module):
    """A module of one function."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def after(module: nn.Module, passes: list[Pass], *inputs: Tensor) -> tuple[GraphModule, GraphModule]:
    """The graph of a module before and after passes; both give the same, bit for bit."""
    program = torch.export.export(module, inputs)
    before, result = rewritten(program), rewritten(program, *passes)
    assert torch.equal(before(*inputs), result(*inputs))
    assert torch.equal(module(*inputs), result(*inputs))
    return before, result


def names(module: GraphModule) -> list[str]:
    """Names of the operations of a graph, in order; Q and D for rounding."""
    short = {"quantize_per_tensor": "Q", "dequantize_per_tensor": "D", "dequantize_per_channel": "W"}
    found = [node.target.__name__.split(".")[0] for node in module.graph.nodes if node.op == "call_function"]
    return [short.get(name, name) for name in found]


def counts(module: GraphModule) -> Counter:
    return Counter(names(module))
