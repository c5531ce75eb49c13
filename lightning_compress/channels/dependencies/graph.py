"""The graph: which channels of a model depend on each other, found by tracing one forward pass.

The graph is torch-pruning's. It is walked here channel by channel, so that channels that are tied to each other inside
one layer (gated units, groups of a convolution, a flattened map) come out as one unit.

Paper: Fang et al., "DepGraph: Towards Any Structural Pruning", https://arxiv.org/abs/2301.12900 (2023).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from traceback import walk_tb
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from lightning_compress.channels.groups import Group, Role, Slice
from lightning_compress.targets import is_linear, is_transposed

__all__ = ["HEAD_COUNTS", "HEAD_TOTALS", "find_groups", "has_channels"]

HEAD_COUNTS = ("num_heads", "num_attention_heads", "num_key_value_heads", "n_heads", "n_head", "heads")
"""Attributes by which attention modules know how many heads they have."""
HEAD_TOTALS = ("all_head_size", "inner_dim", "split_size")
"""Attributes by which attention modules know the width of all heads together."""

_MOST_CHANNELS = 500_000

_Entry: TypeAlias = tuple[str, int, Role]  # tensor name, dimension, role
_Found: TypeAlias = dict[_Entry, dict[int, list[int]]]  # -> channel of the root -> positions


class _Channel(NamedTuple):
    """A channel of some node of the graph, and that of the root that it depends on, as torch-pruning names them."""

    idx: int
    root_idx: int | None


class _TransposedLayers:
    """What torch-pruning asks about linear layers whose weight is ``(in, out)``, which it does not know."""

    def prune_out_channels(self, layer: nn.Module, channels: Any) -> nn.Module:
        raise NotImplementedError  # these two only name the sides of a layer

    def prune_in_channels(self, layer: nn.Module, channels: Any) -> nn.Module:
        raise NotImplementedError

    def get_out_channels(self, layer: nn.Module) -> int:
        return layer.get_parameter("weight").shape[1]

    def get_in_channels(self, layer: nn.Module) -> int:
        return layer.get_parameter("weight").shape[0]


class _RefusedError(Exception):
    """Why the channels of a layer cannot be removed."""


def find_groups(module: nn.Module, run: Callable[[nn.Module], list[Tensor]]) -> tuple[list[Group], dict[str, str]]:
    """Find the groups of a model, and the layers whose channels cannot be removed.

    Args:
        module: the model, in evaluation mode, with gradients enabled on all parameters. Tracing may change its mode.
        run: one forward pass; gives the output tensors.

    Returns:
        the groups, disjoint, and layer name -> reason for every layer that produces channels of none.

    Raises:
        ImportError: torch-pruning is not installed.
        ValueError: the model cannot be traced.
    """
    graph = _trace(module, run)
    names = {id(layer): name for name, layer in module.named_modules()}
    names |= {id(parameter): name for name, parameter in module.named_parameters()}
    sizes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    most = max((max(size) for size in sizes.values() if size), default=0)
    groups: list[Group] = []
    refused: dict[str, str] = {}
    taken: dict[tuple[str, int], set[int]] = {}
    visited: set[str] = set()
    for layer, node in graph.module2node.items():
        if not has_channels(layer) or names[id(layer)] in visited:
            continue
        name = names[id(layer)]
        try:
            for group in _Walk(names, graph, node, most).groups(name, module):
                _check(group, sizes)
                _claim(group, taken)
                groups.append(group)
                visited |= {part.name.rpartition(".")[0] for part in group.slices if part.role == "out"}
        except _RefusedError as reason:
            refused[name] = str(reason)
    return groups, refused | _unknown(module)


def _unknown(module: nn.Module) -> dict[str, str]:
    """Layers with a weight that are of no kind that can be narrowed."""
    return {
        name: f"it is a {type(layer).__name__}: no convolution or linear layer of torch.nn"
        for name, layer in module.named_modules()
        if not (has_channels(layer) or isinstance(layer, nn.Embedding))
        and any(key == "weight" and weight.ndim > 1 for key, weight in layer.named_parameters(recurse=False))
    }


def has_channels(layer: object) -> bool:
    """Whether ``layer`` is a convolution or linear layer; other nodes are operations or parameters."""
    return isinstance(layer, nn.modules.conv._ConvNd) or _is_linear(layer)


def _is_linear(layer: object) -> bool:
    return isinstance(layer, nn.Module) and is_linear(layer)


def _trace(module: nn.Module, run: Callable[[nn.Module], list[Tensor]]) -> Any:
    try:
        import torch_pruning
    except ImportError as error:
        raise ImportError(
            "need torch-pruning to find the channels of a model: pip install 'lightning-compress[channels]'"
        ) from error
    graph = _linked(torch_pruning.DependencyGraph(), [layer for layer in module.modules() if is_transposed(layer)])
    with torch.enable_grad():
        # The product makes an output node of its own: otherwise the graph takes the last layer for the output.
        try:
            graph.build_dependency(
                module, (), forward_fn=lambda model, _: [out * 1 for out in run(model)], verbose=False
            )
        except Exception as error:
            near = _layer_near(error, {id(layer): name for name, layer in module.named_modules()})
            raise ValueError(
                f"need a model whose channels torch-pruning can trace, got {type(module).__name__}, on which it raises "
                f"{type(error).__name__}: {error}{f', at what follows {near!r}' if near else ''}"
            ) from error
    return graph


def _linked(graph: Any, transposed: Iterable[nn.Module]) -> Any:
    """``graph`` with what torch-pruning does not know: layers of weights ``(in, out)``, and how these are split."""
    layers, link = _TransposedLayers(), graph._build_dependency
    for kind in set(map(type, transposed)):
        graph.register_customized_layer(kind, layers)

    def link_more(nodes: Mapping[Any, Any]) -> None:
        link(nodes)
        graph._2d_4d &= not graph.CUSTOMIZED_PRUNERS  # views of sequences keep their channels, as behind nn.Linear
        for node in nodes.values():
            if node.type == graph.ops.OPTYPE.SPLIT and _follow_split(node):
                node.type = graph.ops.OPTYPE.ELEMENTWISE  # there is nothing left to find out about it

    graph._build_dependency = link_more
    return graph


def _follow_split(node: Any) -> bool:
    """Let channels be followed through what a linear layer gives and is split along its last dimension, if so it is.

    torch-pruning follows them along the second. Which part an operation reads is said by the number of the output.
    """
    split = node.grad_fn
    sizes: tuple[int, ...] = getattr(split, "_saved_self_sym_sizes", ())
    if len(sizes) < 3 or not any(_is_linear(before.module) for before in node.inputs):
        return False
    dim = (split._saved_dim + 2**63) % 2**64 - 2**63  # torch shows a negative one as if it had no sign
    if dim not in (-1, len(sizes) - 1):
        return False
    lengths = getattr(split, "_saved_split_sizes", None)
    if lengths is None:
        lengths = [split._saved_split_size] * -(-sizes[-1] // split._saved_split_size)
    for reader in set(node.outputs):
        parts = [number for before, number in reader.grad_fn.next_functions if before is split]
        there = [dependency for dependency in node.dependencies if dependency.target is reader]
        back = [dependency for dependency in reader.dependencies if dependency.target is node]
        for part, forth, home in zip(parts, there, back, strict=False):
            begin = sum(lengths[:part])
            forth.index_mapping[0] = partial(_shifted, by=-begin, end=lengths[part])
            home.index_mapping[0] = partial(_shifted, by=begin, end=sizes[-1])
    return True


def _shifted(channels: Iterable[Any], by: int, end: int) -> list[_Channel]:
    """The channels in a part of a tensor, or in the whole of which it is a part."""
    return [_Channel(channel.idx + by, channel.root_idx) for channel in channels if 0 <= channel.idx + by < end]


def _layer_near(error: Exception, names: Mapping[int, str]) -> str:
    """The nearest named layer before the node of the graph at which torch-pruning failed; empty if unknown."""
    for frame, _ in reversed(list(walk_tb(error.__traceback__))):
        nodes = [value for value in frame.f_locals.values() if hasattr(value, "module") and hasattr(value, "inputs")]
        seen = set(map(id, nodes))
        for node in nodes:  # grows as it is walked: the nearest first
            if names.get(id(node.module)):
                return names[id(node.module)]
            new = [before for before in node.inputs if id(before) not in seen]
            seen.update(map(id, new))
            nodes.extend(new)
    return ""


class _Walk:
    """The walk through the graph from the output channels of one layer."""

    def __init__(self, names: Mapping[int, str], graph: Any, root: Any, most: int) -> None:
        self._names = names
        self._graph = graph
        self._root = root
        self._most = most  # no layer has more channels
        self._found: _Found = {}
        self._parent = list(range(_out_channels(root.module)))  # union-find over the root's channels
        self._met: dict[tuple[int, Any, int], int] = {}  # a channel of some node -> the root channel that met it first
        self._size = 0
        self._first: dict[tuple[int, bool, int], int] = {}  # the same for channels that a layer's groups tie together

    def groups(self, name: str, module: nn.Module) -> Iterator[Group]:
        """The groups of the root; several where its channels have different fates."""
        self._collect()
        parts = len(self._alike()[0][0])  # three, where one layer gives queries, keys and values
        width = len(self._parent) // parts
        heads = _heads(name, module, [name] * parts if parts > 2 else self._producers(), width)
        if heads:
            for channel in range(len(self._parent)):
                self._union(channel, channel - channel % (width // heads))
        counters = tuple(_counters(name, module, heads, width)) if heads else ()
        for number, units in enumerate(self._alike()):
            slices = tuple(self._slice(entry, units) for entry in self._found if self._positions(entry, units[0]))
            width = len(self._positions((f"{name}.weight", _out_dim(self._root.module), "out"), units[0]))
            yield Group(name if number == 0 else f"{name}#{number}", slices, width, counters)

    def _collect(self) -> None:
        root = self._root
        handler = self._graph.get_pruner_of_module(root.module).prune_out_channels
        stack: list[Any] = [(root, handler, [_Channel(i, i) for i in range(len(self._parent))])]
        while stack:
            node, function, channels = stack.pop()
            new = self._meet(node, function, channels)
            if not new:
                continue
            self._record(node, function, new)
            for dependency in node.dependencies:
                if dependency.is_triggered_by(function):
                    mapped = new
                    for mapping in dependency.index_mapping:
                        mapped = mapped if mapping is None else mapping(mapped)
                    stack.append((dependency.target, dependency.handler, mapped))

    def _meet(self, node: Any, function: Any, channels: Iterable[Any]) -> list[Any]:
        """Channels of a node that are met for the first time; root channels that meet in another one are tied."""
        new = []
        for channel in channels:
            if not 0 <= channel.idx < self._most:
                raise _RefusedError(f"its channels could not be followed to {node.name}")
            if channel.root_idx is None:
                raise _RefusedError(f"its heads are repeated at {self._names.get(id(node.module), node.name)}")
            first = self._met.setdefault((id(node), function, channel.idx), channel.root_idx)
            if len(self._met) > self._size:
                self._size = len(self._met)
                new.append(channel)
            else:
                self._union(channel.root_idx, first)
        if self._size > _MOST_CHANNELS:
            raise _RefusedError("it depends on more channels than can be followed")
        return new

    def _record(self, node: Any, function: Any, channels: Iterable[Any]) -> None:
        """Note the tensor entries of these channels of a node, and tie root channels that meet in one of them."""
        layer = node.module
        _refuse(node, self._graph.ops.OPTYPE, self._names)
        incoming = getattr(function, "__name__", "").endswith("prune_in_channels")
        entries = _entries(layer, incoming, node.pruning_dim)
        prefix = self._names.get(id(layer), "")
        per_group = _channels_per_group(layer, incoming)
        for channel in channels:
            position = channel.idx
            tie = position % per_group if per_group else position
            self._union(channel.root_idx, self._first.setdefault((id(layer), incoming, tie), channel.root_idx))
            if per_group and incoming:
                position = tie
            for key, dim, role in entries:
                entry = (f"{prefix}.{key}" if key else prefix, dim, role)
                self._found.setdefault(entry, {}).setdefault(channel.root_idx, []).append(position)

    def _producers(self) -> list[str]:
        return [name.rpartition(".")[0] for name, _, role in self._found if role == "out"]

    def _union(self, a: int, b: int) -> None:
        a, b = self._find(a), self._find(b)
        self._parent[max(a, b)] = min(a, b)

    def _find(self, a: int) -> int:
        while self._parent[a] != a:
            self._parent[a] = self._parent[self._parent[a]]
            a = self._parent[a]
        return a

    def _alike(self) -> list[list[list[int]]]:
        """Units (lists of root channels), those of the same make together."""
        members: dict[int, list[int]] = {}
        for channel in range(len(self._parent)):
            members.setdefault(self._find(channel), []).append(channel)
        makes: dict[tuple[int, ...], list[list[int]]] = {}
        for unit in members.values():
            make = tuple(len(self._positions(entry, unit)) for entry in self._found)
            makes.setdefault(make, []).append(unit)
        return list(makes.values())

    def _positions(self, entry: _Entry, unit: Iterable[int]) -> list[int]:
        return sorted({position for channel in unit for position in self._found[entry].get(channel, ())})

    def _slice(self, entry: _Entry, units: Iterable[Iterable[int]]) -> Slice:
        name, dim, role = entry
        return Slice(name, dim, torch.tensor([self._positions(entry, unit) for unit in units]), role)


def _refuse(node: Any, types: Any, names: Mapping[int, str]) -> None:
    """Layers that a channel may not reach."""
    layer = node.module
    name = names.get(id(layer), type(layer).__name__)
    if node.type == types.OUTPUT:
        raise _RefusedError("its channels are an output of the model")
    if node.type in (types.LN, types.GN):
        raise _RefusedError(f"{name} normalises over its channels, so that a removed one would be missed")
    if node.type in (types.MHA, types.LSTM) or isinstance(layer, nn.RNNBase):
        raise _RefusedError(f"{name} is a {type(layer).__name__}")
    if isinstance(layer, nn.modules.conv._ConvNd) and layer.groups > 1:
        odd = layer.groups == layer.out_channels != layer.in_channels or (layer.transposed and not _depthwise(layer))
        if odd:
            raise _RefusedError(f"{name} is a grouped convolution of a kind that cannot be narrowed")


def _depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.modules.conv._ConvNd) and layer.groups == layer.out_channels == layer.in_channels > 1


def _out_channels(layer: nn.Module) -> int:
    if isinstance(layer, nn.modules.conv._ConvNd):
        return layer.out_channels
    return layer.get_parameter("weight").shape[_out_dim(layer)]


def _out_dim(layer: nn.Module) -> int:
    return int(is_transposed(layer) or (bool(getattr(layer, "transposed", False)) and not _depthwise(layer)))


def _channels_per_group(layer: nn.Module, incoming: bool) -> int:
    """Channels of one group of a grouped convolution, all groups of which shrink alike; 0 for every other layer."""
    if not isinstance(layer, nn.modules.conv._ConvNd) or layer.groups == 1 or _depthwise(layer):
        return 0
    return (layer.in_channels if incoming else layer.out_channels) // layer.groups


def _entries(layer: Any, incoming: bool, pruning_dim: int) -> list[tuple[str, int, Role]]:
    """The tensors of a layer that have an entry for each of its channels: key, dimension, role."""
    if isinstance(layer, nn.Parameter):
        return [("", pruning_dim % layer.ndim, "other")]
    if isinstance(layer, nn.Embedding):
        return [("weight", 1, "out")]
    if has_channels(layer):
        if incoming and not _depthwise(layer):
            return [("weight", 1 - _out_dim(layer), "in")]
        bias: list[tuple[str, int, Role]] = [("bias", 0, "other")] if layer.bias is not None else []
        return [("weight", _out_dim(layer), "out"), *bias]
    if isinstance(layer, nn.modules.batchnorm._NormBase | nn.PReLU):
        if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
            return []
        keys: dict[str, Role] = {"weight": "scale" if not isinstance(layer, nn.PReLU) else "other", "bias": "other"}
        keys |= {"running_mean": "other", "running_var": "other"}
        return [(key, 0, role) for key, role in keys.items() if getattr(layer, key, None) is not None]
    return []


def _heads(name: str, module: nn.Module, producers: list[str], width: int) -> int:
    """How many attention heads the ``width`` of queries is divided into; 0 if the layer is no part of attention."""
    owner = name.rpartition(".")[0]
    if sum(producer.rpartition(".")[0] == owner for producer in producers) < 2:
        return 0
    attention = module.get_submodule(owner)
    counts = [vars(attention).get(key) for key in HEAD_COUNTS]
    return next((n for n in counts if type(n) is int and n > 1 and width % n == 0), 0)


def _counters(name: str, module: nn.Module, heads: int, width: int) -> Iterator[tuple[str, str, int]]:
    owner = name.rpartition(".")[0]
    attributes = vars(module.get_submodule(owner))
    for key in HEAD_COUNTS:
        if attributes.get(key) == heads:
            yield owner, key, 1
    for key in HEAD_TOTALS:
        if attributes.get(key) == width:
            yield owner, key, width // heads


def _check(group: Group, sizes: Mapping[str, torch.Size]) -> None:
    """Every entry exists."""
    for part in group.slices:
        if int(part.index.max()) >= sizes[part.name][part.dim]:
            raise _RefusedError(f"its channels could not be followed to {part.name}")


def _claim(group: Group, taken: dict[tuple[str, int], set[int]]) -> None:
    """Every entry belongs to one group only."""
    mine = {(part.name, part.dim): set(part.index.flatten().tolist()) for part in group.slices}
    for key, positions in mine.items():
        if positions & taken.get(key, set()):
            raise _RefusedError(f"{key[0]} belongs to other channels as well")
    for key, positions in mine.items():
        taken.setdefault(key, set()).update(positions)
