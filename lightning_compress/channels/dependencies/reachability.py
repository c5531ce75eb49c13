"""Reachability: the layers of a model and the edges from each layer to the layers that read its output."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.channels.layers import has_channels
from lightning_compress.channels.removal.hollow import Hollow, is_leaf
from lightning_compress.example_inputs import tensors_in

__all__ = ["LayerGraph", "build_layer_graph", "unreached_layers"]


@dataclass(frozen=True)
class LayerGraph:
    """The layers with parameters of their own, and the direct edges between them.

    An edge says that a layer reads the output of another, perhaps through operations without parameters.

    Attributes:
        inputs: layer -> layers whose output it reads.
        outputs: layers that the output of the model is computed from directly.
        fed: layers with an input that depends on any parameter.
    """

    inputs: Mapping[str, frozenset[str]]
    outputs: frozenset[str]
    fed: frozenset[str]

    def ancestors(self, constant: Collection[str] = ()) -> set[str]:
        """Layers with an effect on the output of the model.

        Args:
            constant: layers whose output does not depend on their input.
        """
        found: set[str] = set()
        waiting = list(self.outputs)
        while waiting:
            layer = waiting.pop()
            if layer not in found:
                found.add(layer)
                waiting += () if layer in constant else self.inputs.get(layer, ())
        return found

    def descendants(self, roots: Collection[str], constant: Collection[str] = ()) -> set[str]:
        """Layers whose input depends on the output of one of the ``roots``; ``constant`` as for :meth:`ancestors`."""
        readers: dict[str, set[str]] = {}
        for layer, inputs in self.inputs.items():
            for before in inputs:
                readers.setdefault(before, set()).add(layer)
        found: set[str] = set()
        waiting = [reader for root in roots if root not in constant for reader in readers.get(root, ())]
        while waiting:
            layer = waiting.pop()
            if layer not in found:
                found.add(layer)
                waiting += () if layer in constant else readers.get(layer, ())
        return found


def build_layer_graph(model: nn.Module, run: Callable[[nn.Module], list[Tensor]]) -> LayerGraph:
    """Trace one forward pass.

    Args:
        model: the model, with gradients enabled on all parameters.
        run: one forward pass; returns the output tensors that gradients flow to.
    """
    layers = {name: layer for name, layer in model.named_modules() if list(layer.parameters(recurse=False))}
    owners = {id(p): name for name, layer in layers.items() for p in layer.parameters(recurse=False)}
    inputs: dict[str, set[str]] = {name: set() for name in layers}
    fed: set[str] = set()
    produced: dict[Any, str] = {}  # node of autograd's graph -> the layer whose output it computes

    def before(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            tensors = _differentiable((args, kwargs))
            if tensors:
                fed.add(name)
            # Inside a module with submodules, edges lead from and to the submodules; a hollow layer reads nothing.
            if is_leaf(layer) and not isinstance(layer, Hollow):
                inputs[name] |= _sources(tensors, produced, owners)

        return hook

    def after(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, args: tuple[Any, ...], result: Any) -> None:
            if is_leaf(layer):
                produced.update({tensor.grad_fn: name for tensor in _differentiable(result) if tensor.grad_fn})

        return hook

    handles = [layer.register_forward_pre_hook(before(name), with_kwargs=True) for name, layer in layers.items()]
    handles += [layer.register_forward_hook(after(name)) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            outputs = _sources(run(model), produced, owners)
    finally:
        for handle in handles:
            handle.remove()
    edges = {name: frozenset(sources) for name, sources in inputs.items()}
    return LayerGraph(edges, frozenset(outputs), frozenset(fed))


def unreached_layers(model: nn.Module, run: Callable[[nn.Module], list[Tensor]]) -> dict[str, str]:
    """Layers with channels that no path from their call to an output leads through -> the reason.

    Args:
        model: the model, in evaluation mode, with gradients enabled on all parameters.
        run: one forward pass; returns the output tensors that gradients flow to.
    """
    layers = {name: layer for name, layer in model.named_modules() if has_channels(layer)}
    called: set[nn.Module] = set()
    handles = [layer.register_forward_hook(lambda layer, *_: called.add(layer)) for layer in layers.values()]
    try:
        reached = build_layer_graph(model, run).ancestors()
    finally:
        for handle in handles:
            handle.remove()
    uncalled = {name for name, layer in layers.items() if layer not in called}
    return {
        **dict.fromkeys(layers.keys() - reached - uncalled, "no output depends on it"),
        **dict.fromkeys(uncalled - reached, "forward does not call it in evaluation mode"),
        **dict.fromkeys(uncalled & reached, "forward reads its weight without calling it"),
    }


def _differentiable(tree: Any) -> list[Tensor]:
    return [tensor for tensor in tensors_in(tree) if tensor.requires_grad]


def _sources(tensors: Iterable[Tensor], produced: Mapping[Any, str], owners: Mapping[int, str]) -> set[str]:
    """The layers that the tensors are computed from directly: by their outputs, or by parameters used elsewhere."""
    found = {owners[id(tensor)] for tensor in tensors if id(tensor) in owners}
    waiting = [tensor.grad_fn for tensor in tensors if tensor.grad_fn is not None]
    seen: set[Any] = set(waiting)
    while waiting:
        node: Any = waiting.pop()
        if node in produced:
            found.add(produced[node])
            continue
        if id(getattr(node, "variable", None)) in owners:
            found.add(owners[id(node.variable)])
        new = {before for before, _ in node.next_functions if before is not None} - seen
        seen |= new
        waiting += new
    return found
