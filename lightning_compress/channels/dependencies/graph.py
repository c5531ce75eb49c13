"""The dependency graph of torch-pruning, built by tracing one forward pass, with the cases that torch-pruning lacks.

Paper: Fang et al., "DepGraph: Towards Any Structural Pruning", https://arxiv.org/abs/2301.12900 (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from traceback import walk_tb
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_compress.channels.layers import has_channels
from lightning_compress.targets import is_linear, is_transposed

__all__ = ["Channel", "build_graph"]


class Channel(NamedTuple):
    """A channel of a node of the graph, with the field names that torch-pruning uses.

    Attributes:
        idx: the channel.
        root_idx: the channel of the root, at which the walk began, that it depends on.
    """

    idx: int
    root_idx: int | None


def build_graph(module: nn.Module, run: Callable[[nn.Module], list[Tensor]]) -> Any:
    """Trace one forward pass and build torch-pruning's graph of it.

    Args:
        module: the model, in evaluation mode, with gradients enabled on all parameters. Tracing may change its mode.
        run: one forward pass; returns the output tensors.

    Returns:
        a ``torch_pruning.DependencyGraph``.

    Raises:
        ImportError: torch-pruning is not installed.
        ValueError: the model cannot be traced.
    """
    try:
        import torch_pruning
    except ImportError as error:
        raise ImportError(
            "need torch-pruning to find the channels of a model: pip install 'lightning-compress[channels]'"
        ) from error
    graph = torch_pruning.DependencyGraph()
    _extend_(graph, [layer for layer in module.modules() if is_transposed(layer)])
    with torch.enable_grad():
        try:
            # The product makes each output a node of its own; without it the graph takes the last layer for the output.
            graph.build_dependency(
                module, (), forward_fn=lambda model, _: [out * 1 for out in run(model)], verbose=False
            )
        except Exception as error:
            near = _last_layer(error, {id(layer): name for name, layer in module.named_modules()})
            raise ValueError(
                f"need a model whose channels torch-pruning can trace, got {type(module).__name__}, on which it raises "
                f"{type(error).__name__}: {error}{f', after layer {near!r}' if near else ''}"
            ) from error
    return graph


class _TransposedLayers:
    """The methods that torch-pruning calls on linear layers whose weight is ``(in, out)``."""

    def prune_out_channels(self, layer: nn.Module, channels: Any) -> nn.Module:
        raise NotImplementedError  # only the name is used: it identifies a side of the layer

    def prune_in_channels(self, layer: nn.Module, channels: Any) -> nn.Module:
        raise NotImplementedError

    def get_out_channels(self, layer: nn.Module) -> int:
        return layer.get_parameter("weight").shape[1]

    def get_in_channels(self, layer: nn.Module) -> int:
        return layer.get_parameter("weight").shape[0]


def _extend_(graph: Any, transposed: Iterable[nn.Module]) -> None:
    """Teach ``graph`` two cases: linear layers with weights ``(in, out)``, and splits of their outputs."""
    layers, link = _TransposedLayers(), graph._build_dependency
    for kind in set(map(type, transposed)):
        graph.register_customized_layer(kind, layers)

    def link_more(nodes: Mapping[Any, Any]) -> None:
        link(nodes)
        graph._2d_4d &= not graph.CUSTOMIZED_PRUNERS  # views of sequences keep their channels, as after nn.Linear
        for node in nodes.values():
            if node.type == graph.ops.OPTYPE.SPLIT and _follow_split(node):
                node.type = graph.ops.OPTYPE.ELEMENTWISE  # torch-pruning must not map its channels again

    graph._build_dependency = link_more


def _follow_split(node: Any) -> bool:
    """Map channels through a split of a linear layer's output along its last dimension.

    torch-pruning maps them only along the second dimension. Example: ``gate`` is a linear layer with 12 outputs on
    sequences of length 5, and the model computes ``a, b = gate(x).chunk(2, dim=-1)``, then ``down(a)``. The split node
    has ``sizes == (batch, 5, 12)`` and ``lengths == [6, 6]``. The node of ``down`` reads output 0 of the split, so
    channels 0 to 5 of the split are channels 0 to 5 of ``down``; a node that reads ``b``, output 1, has
    ``begin == 6``: channel 7 of the split is its channel 1 (``forth``), and its channel 1 is channel 7 (``back``).

    Returns:
        whether the node is such a split.
    """
    split = node.grad_fn
    sizes: tuple[int, ...] = getattr(split, "_saved_self_sym_sizes", ())
    if len(sizes) < 3 or not any(_is_linear(before.module) for before in node.inputs):
        return False
    dim = (split._saved_dim + 2**63) % 2**64 - 2**63  # torch shows a negative dimension as an unsigned number
    if dim not in (-1, len(sizes) - 1):
        return False
    lengths = getattr(split, "_saved_split_sizes", None)
    if lengths is None:
        lengths = [split._saved_split_size] * -(-sizes[-1] // split._saved_split_size)
    for reader in set(node.outputs):
        outputs = [number for before, number in reader.grad_fn.next_functions if before is split]
        forth = [dependency for dependency in node.dependencies if dependency.target is reader]
        back = [dependency for dependency in reader.dependencies if dependency.target is node]
        for number, to_reader, to_split in zip(outputs, forth, back, strict=False):
            begin = sum(lengths[:number])
            to_reader.index_mapping[0] = partial(_shifted, by=-begin, end=lengths[number])
            to_split.index_mapping[0] = partial(_shifted, by=begin, end=sizes[-1])
    return True


def _is_linear(layer: object) -> bool:
    return isinstance(layer, nn.Module) and has_channels(layer) and is_linear(layer)


def _shifted(channels: Iterable[Any], by: int, end: int) -> list[Channel]:
    """The channels, moved by ``by``, that then lie in ``range(end)``."""
    return [Channel(channel.idx + by, channel.root_idx) for channel in channels if 0 <= channel.idx + by < end]


def _last_layer(error: Exception, names: Mapping[int, str]) -> str:
    """Name of the last layer before the node at which torch-pruning failed; empty if unknown."""
    for frame, _ in reversed(list(walk_tb(error.__traceback__))):
        nodes = [value for value in frame.f_locals.values() if hasattr(value, "module") and hasattr(value, "inputs")]
        seen = set(map(id, nodes))
        for node in nodes:  # the list grows during the loop: breadth first, the nearest nodes first
            if names.get(id(node.module)):
                return names[id(node.module)]
            new = [before for before in node.inputs if id(before) not in seen]
            seen.update(map(id, new))
            nodes.extend(new)
    return ""
