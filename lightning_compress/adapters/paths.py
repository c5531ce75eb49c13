"""Additive paths: the layers of a module that add something trained to a weight, and what each of them adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from lightning_compress.adapters import lora
from lightning_compress.arguments import check_module, shown

__all__ = ["AdditivePath", "Delta", "additive_paths", "declare", "replaced_layers", "unknown_adapters"]

Delta: TypeAlias = Callable[[nn.Module], Tensor]
"""Layer -> the tensor that its forward pass adds to the weight, in the weight's shape."""

_DECLARED = "declared_additive_path"


@dataclass(frozen=True, eq=False)
class AdditivePath:
    """A layer that computes with the sum of a weight and of adapters.

    Attributes:
        name: of the layer in the module: ``"encoder.query"``.
        layer: holds the layer of the weight, and the adapters.
        weight: name of the weight in the layer: ``"base_layer.weight"``.
        delta: layer -> the sum of its adapters.
    """

    name: str
    layer: nn.Module
    weight: str
    delta: Delta

    @property
    def weight_name(self) -> str:
        """Name of the weight in the module: ``"encoder.query.base_layer.weight"``."""
        return f"{self.name}.{self.weight}" if self.name else self.weight

    @property
    def base(self) -> nn.Module:
        """The layer of the weight, without adapters."""
        return self.layer.get_submodule(self.weight.rpartition(".")[0])

    @property
    def key(self) -> str:
        """Name of the weight in its layer: ``"weight"``."""
        return self.weight.rpartition(".")[2]

    @property
    def parameter(self) -> nn.Parameter:
        """The weight."""
        return self.layer.get_parameter(self.weight)

    @property
    def adapters(self) -> list[nn.Parameter]:
        """The parameters of the layer that are not those of its base."""
        own = {id(parameter) for parameter in self.base.parameters()}
        return [parameter for parameter in self.layer.parameters() if id(parameter) not in own]

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """The present sum of the adapters.

        Raises:
            ValueError: the delta has another shape than the weight.
        """
        delta, shape = self.delta(self.layer), self.parameter.shape
        if delta.shape != shape:
            raise ValueError(
                f"need a delta of the shape of {self.weight_name!r}, {tuple(shape)}, got {tuple(delta.shape)}"
            )
        return delta.detach()


def declare(layer: nn.Module, weight: str, delta: Delta) -> None:
    """Declare what a layer adds to a weight, for adapters that are not those of PEFT.

    All other parameters of the layer, but for those of the module that holds the weight, count as parts of adapters.
    :func:`~.merging.merge` puts that module in the place of the layer.

    Args:
        layer: computes with ``weight + delta(layer)`` in evaluation mode.
        weight: name of the weight in the layer, in a module within it: ``"linear.weight"``.
        delta: a function of the layer, not bound to it, as copies of a model have layers of their own.

    Raises:
        TypeError: ``layer`` is no module, ``weight`` no name, or ``delta`` not callable.
        ValueError: the layer has no such weight.

    >>> class Added(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear, self.down, self.up = nn.Linear(3, 2), nn.Linear(3, 1, False), nn.Linear(1, 2, False)
    ...     def forward(self, x):
    ...         return self.linear(x) + self.up(self.down(x))
    >>> net = nn.Sequential(Added())
    >>> declare(net[0], "linear.weight", lambda layer: layer.up.weight @ layer.down.weight)
    >>> [path.weight_name for path in additive_paths(net)]
    ['0.linear.weight']
    """
    check_module(layer=layer)
    if not isinstance(weight, str):
        raise TypeError(f"need weight as the name of one in a module of the layer, got {shown(weight)}")
    if not callable(delta):
        raise TypeError(f"need delta as a function of the layer, got {delta!r}")
    if "." not in weight or weight not in dict(layer.named_parameters()):
        names = [name for name, _ in layer.named_parameters() if "." in name]
        raise ValueError(f"need weight as the name of one in a module of the layer, got {weight!r}; there are: {names}")
    vars(layer)[_DECLARED] = (weight, delta)


def additive_paths(module: nn.Module) -> list[AdditivePath]:
    """The layers of ``module`` that add adapters to a weight: LoRA of PEFT, and those that were declared."""
    return list(_found(module))


def replaced_layers(module: nn.Module) -> dict[str, tuple[nn.Module, nn.Module]]:
    """Name of each layer that merging replaces -> the layer, and the one that takes its place.

    They are the layers with adapters, and those of PEFT's ``modules_to_save``, which hold a trained copy of themselves.
    """
    copies = ((name, layer, lora.trained_copy(layer)) for name, layer in module.named_modules())
    found = {name: (layer, copy) for name, layer, copy in copies if copy is not None}
    return {path.name: (path.layer, path.base) for path in additive_paths(module)} | found


def unknown_adapters(module: nn.Module) -> dict[str, str]:
    """Name of each layer with adapters that are no known sum -> a few words on them, ``"DoRA"``."""
    known = {path.name for path in _found(module)}
    kinds = {name: lora.obstacle(layer) for name, layer in module.named_modules() if name not in known}
    return {name: kind for name, kind in kinds.items() if kind}


def _found(module: nn.Module) -> Iterator[AdditivePath]:
    for name, layer in module.named_modules():
        if _DECLARED in vars(layer):
            yield AdditivePath(name, layer, *vars(layer)[_DECLARED])
        elif lora.is_sum(layer):
            yield AdditivePath(name, layer, lora.WEIGHT, lora.delta)
