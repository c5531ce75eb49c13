"""The walk through the dependency graph that finds the groups of a model.

The graph is walked channel by channel, so that channels that are coupled inside one layer (gated units,
groups of a convolution, a flattened map) form one unit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lightning_compress.channels.dependencies.graph import Channel, build_graph
from lightning_compress.channels.dependencies.own_layers import declare_linear_layers_
from lightning_compress.channels.dependencies.reachability import unreached_layers
from lightning_compress.channels.groups import Group, Role, Slice
from lightning_compress.channels.heads import count_heads, head_counters
from lightning_compress.channels.layers import (
    channel_entries,
    channels_per_group,
    has_channels,
    is_depthwise,
    out_channels,
    out_dim,
)

__all__ = ["UnionFind", "find_groups"]

_MOST_CHANNELS = 500_000

_Entry: TypeAlias = tuple[str, int, Role]  # tensor name, dimension, role


class _RefusedError(Exception):
    """The reason why the channels of a layer cannot be removed."""


def find_groups(module: nn.Module, run: Callable[[nn.Module], list[Tensor]]) -> tuple[list[Group], dict[str, str]]:
    """Find the groups of a model, and the layers whose channels cannot be removed.

    Args:
        module: the model, in evaluation mode, with gradients enabled on all parameters. Tracing may change its mode and
            the classes of its layers.
        run: one forward pass; returns the output tensors.

    Returns:
        the groups, disjoint, and layer name -> reason for every layer whose channels belong to none.

    Raises:
        ImportError: torch-pruning is not installed.
        ValueError: the model cannot be traced.
    """
    declare_linear_layers_(module, run)
    graph = build_graph(module, run)
    names = {id(layer): name for name, layer in module.named_modules()}
    names |= {id(parameter): name for name, parameter in module.named_parameters()}
    sizes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    most = max((max(size) for size in sizes.values() if size), default=0)
    groups: list[Group] = []
    refused: dict[str, str] = {}
    claimed: dict[tuple[str, int], set[int]] = {}
    visited: set[str] = set()
    for layer, node in graph.module2node.items():
        if not has_channels(layer) or names[id(layer)] in visited:
            continue
        name = names[id(layer)]
        try:
            for group in _Walk(names, graph, node, most).groups(name, module):
                _check_positions(group, sizes)
                _claim(group, claimed)
                groups.append(group)
                visited |= {part.name.rpartition(".")[0] for part in group.slices if part.role == "out"}
        except _RefusedError as reason:
            refused[name] = str(reason)
    unreached = {name: why for name, why in unreached_layers(module, run).items() if name not in visited}
    return groups, {**unreached, **refused, **_unknown_layers(module)}


class UnionFind:
    """Disjoint sets of the numbers below ``size``.

    >>> coupled = UnionFind(4)
    >>> coupled.union(0, 2)
    >>> coupled.sets()
    [[0, 2], [1], [3]]
    """

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def __len__(self) -> int:
        return len(self._parents)

    def find(self, number: int) -> int:
        """The smallest number of the set that ``number`` belongs to."""
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number

    def union(self, a: int, b: int) -> None:
        """Join the sets of two numbers."""
        a, b = self.find(a), self.find(b)
        self._parents[max(a, b)] = min(a, b)

    def sets(self) -> list[list[int]]:
        """The sets, by their smallest numbers."""
        members: dict[int, list[int]] = {}
        for number in range(len(self)):
            members.setdefault(self.find(number), []).append(number)
        return list(members.values())


class _Walk:
    """The walk through the graph from the output channels of one layer, the root.

    Args:
        names: id of a layer or parameter -> its name.
        graph: torch-pruning's graph.
        root: node of the layer.
        most: no layer has more channels.
    """

    def __init__(self, names: Mapping[int, str], graph: Any, root: Any, most: int) -> None:
        self._names = names
        self._graph = graph
        self._root = root
        self._most = most
        self._coupled = UnionFind(out_channels(root.module))  # over the channels of the root
        self._positions: dict[_Entry, dict[int, list[int]]] = {}  # entry -> channel of the root -> positions
        self._met: dict[tuple[int, Any, int], int] = {}  # channel of a node -> the first root channel that met it
        self._met_in_group: dict[tuple[int, bool, int], int] = {}  # the same, modulo the groups of a convolution

    def groups(self, name: str, module: nn.Module) -> Iterator[Group]:
        """The groups of the root; several if its channels differ in the entries that belong to them."""
        self._visit_all()
        # One layer may compute queries, keys and values: then three of its channels belong to each unit.
        parts = len(self._alike()[0][0])
        width = len(self._coupled) // parts
        heads = count_heads(name, module, [name] * parts if parts > 2 else self._producers(), width)
        if heads:
            for channel in range(len(self._coupled)):
                self._coupled.union(channel, channel - channel % (width // heads))
        counters = tuple(head_counters(name, module, heads, width)) if heads else ()
        for number, units in enumerate(self._alike()):
            slices = tuple(self._slice(entry, units) for entry in self._positions if self._of_unit(entry, units[0]))
            width = len(self._of_unit((f"{name}.weight", out_dim(self._root.module), "out"), units[0]))
            yield Group(name if number == 0 else f"{name}#{number}", slices, width, counters)

    def _visit_all(self) -> None:
        """Visit every node that the channels of the root lead to."""
        root = self._root
        handler = self._graph.get_pruner_of_module(root.module).prune_out_channels
        stack: list[Any] = [(root, handler, [Channel(i, i) for i in range(len(self._coupled))])]
        while stack:
            node, handler, channels = stack.pop()
            new = self._unmet(node, handler, channels)
            if not new:
                continue
            self._record(node, handler, new)
            stack.extend(
                (dependency.target, dependency.handler, self._mapped(dependency, new))
                for dependency in node.dependencies
                if dependency.is_triggered_by(handler)
            )

    def _mapped(self, dependency: Any, channels: list[Any]) -> list[Any]:
        """The channels of the node that a dependency leads to."""
        try:
            for mapping in dependency.index_mapping:
                channels = channels if mapping is None else mapping(channels)
        except Exception as error:  # torch-pruning follows a part of all operations: splits and views in some shapes
            target = dependency.target
            name = self._names.get(id(target.module), target.name)
            raise _RefusedError(f"its channels could not be followed to {name}") from error
        return channels

    def _unmet(self, node: Any, handler: Any, channels: Iterable[Any]) -> list[Any]:
        """The channels of a node that are met for the first time; root channels that meet in another are coupled."""
        new = []
        for channel in channels:
            if not 0 <= channel.idx < self._most:
                raise _RefusedError(f"its channels could not be followed to {node.name}")
            if channel.root_idx is None:
                raise _RefusedError(f"its heads are repeated at {self._names.get(id(node.module), node.name)}")
            key = (id(node), handler, channel.idx)
            if key in self._met:
                self._coupled.union(channel.root_idx, self._met[key])
            else:
                self._met[key] = channel.root_idx
                new.append(channel)
        if len(self._met) > _MOST_CHANNELS:
            raise _RefusedError("it depends on more channels than can be followed")
        return new

    def _record(self, node: Any, handler: Any, channels: Iterable[Any]) -> None:
        """Record the tensor entries of channels of a node; root channels with a common entry are coupled."""
        layer = node.module
        _refuse(node, self._graph.ops.OPTYPE, self._names)
        incoming = getattr(handler, "__name__", "").endswith("prune_in_channels")
        entries = channel_entries(layer, incoming, node.pruning_dim)
        prefix = self._names.get(id(layer), "")
        per_group = channels_per_group(layer, incoming)
        for channel in channels:
            position = channel.idx
            in_group = position % per_group if per_group else position
            first = self._met_in_group.setdefault((id(layer), incoming, in_group), channel.root_idx)
            self._coupled.union(channel.root_idx, first)
            if per_group and incoming:
                position = in_group
            for key, dim, role in entries:
                entry = (f"{prefix}.{key}" if key else prefix, dim, role)
                self._positions.setdefault(entry, {}).setdefault(channel.root_idx, []).append(position)

    def _producers(self) -> list[str]:
        return [name.rpartition(".")[0] for name, _, role in self._positions if role == "out"]

    def _alike(self) -> list[list[list[int]]]:
        """Units (lists of root channels); those with equally many positions in every entry form one list."""
        alike: dict[tuple[int, ...], list[list[int]]] = {}
        for unit in self._coupled.sets():
            counts = tuple(len(self._of_unit(entry, unit)) for entry in self._positions)
            alike.setdefault(counts, []).append(unit)
        return list(alike.values())

    def _of_unit(self, entry: _Entry, unit: Iterable[int]) -> list[int]:
        return sorted({position for channel in unit for position in self._positions[entry].get(channel, ())})

    def _slice(self, entry: _Entry, units: Iterable[Iterable[int]]) -> Slice:
        name, dim, role = entry
        return Slice(name, dim, torch.tensor([self._of_unit(entry, unit) for unit in units]), role)


def _refuse(node: Any, types: Any, names: Mapping[int, str]) -> None:
    """Refuse channels that reach a layer from which they cannot be removed."""
    layer = node.module
    name = names.get(id(layer), type(layer).__name__)
    if node.type == types.OUTPUT:
        raise _RefusedError("its channels are an output of the model")
    if node.type in (types.LN, types.GN):
        raise _RefusedError(f"{name} normalizes over its channels, so that removal would change the others")
    if node.type in (types.MHA, types.LSTM) or isinstance(layer, nn.RNNBase):
        raise _RefusedError(f"{name} is a {type(layer).__name__}")
    if isinstance(layer, nn.modules.conv._ConvNd) and layer.groups > 1:
        odd = layer.groups == layer.out_channels != layer.in_channels or (layer.transposed and not is_depthwise(layer))
        if odd:
            raise _RefusedError(f"{name} is a grouped convolution of a kind that cannot be narrowed")


def _unknown_layers(module: nn.Module) -> dict[str, str]:
    """Layers with a weight that are of no known kind, and those whose channels are not followed inside."""
    inside = (nn.RNNBase, nn.MultiheadAttention)
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, inside)}
    return {name: f"it is a {type(layer).__name__}, whose channels stay" for name, layer in layers.items()} | {
        name: f"it is a {type(layer).__name__}: no layer of torch.nn, and no F.linear reads its weight"
        for name, layer in module.named_modules()
        if not (has_channels(layer) or isinstance(layer, nn.Embedding))
        and any(key == "weight" and weight.ndim > 1 for key, weight in layer.named_parameters(recurse=False))
    }


def _check_positions(group: Group, sizes: Mapping[str, torch.Size]) -> None:
    """Refuse a group with positions outside of its tensors."""
    for part in group.slices:
        if int(part.index.max()) >= sizes[part.name][part.dim]:
            raise _RefusedError(f"its channels could not be followed to {part.name}")


def _claim(group: Group, claimed: dict[tuple[str, int], set[int]]) -> None:
    """Record the entries of a group; refuse one that another group has claimed."""
    positions = {(part.name, part.dim): set(part.index.flatten().tolist()) for part in group.slices}
    for key, own in positions.items():
        if own & claimed.get(key, set()):
            raise _RefusedError(f"{key[0]} belongs to other channels as well")
    for key, own in positions.items():
        claimed.setdefault(key, set()).update(own)
