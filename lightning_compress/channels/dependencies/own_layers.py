"""Layers of one's own: modules of other classes that are linear layers, since ``F.linear`` reads their weight.

torch-pruning knows layers by their class. In the copy that it traces, such a module is therefore given the class of a
linear layer beside its own; it computes as before. Channels are removed from the module as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lightning_compress.channels.removal.hollow import is_leaf
from lightning_compress.targets import is_layer

__all__ = ["declare_linear_layers_"]


def declare_linear_layers_(model: nn.Module, run: Callable[[nn.Module], list[Tensor]]) -> None:
    """Let each module of one's own that is a linear layer be an ``nn.Linear``, too.

    It is a linear layer if it has no submodules, and ``F.linear`` reads its parameter ``weight`` when it is called.

    Args:
        model: a copy of the model that serves to trace it; changed in place.
        run: one forward pass.

    >>> import torch
    >>> class Product(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.weight = nn.Parameter(torch.ones(3, 2))
    ...     def forward(self, x):
    ...         return nn.functional.linear(x, self.weight)
    >>> model = nn.Sequential(Product())
    >>> declare_linear_layers_(model, lambda model: [model(torch.ones(1, 2))])
    >>> isinstance(model[0], nn.Linear), type(model[0]).__name__, model(torch.ones(1, 2)).tolist()
    (True, 'Product', [[2.0, 2.0, 2.0]])
    """
    possible = [layer for layer in model.modules() if _may_be_linear(layer)]
    called: set[nn.Module] = set()
    handles = [layer.register_forward_hook(lambda layer, *_: called.add(layer)) for layer in possible]
    try:
        with _Reads() as reads:
            if possible:
                run(model)
    finally:
        for handle in handles:
            handle.remove()
    for layer in called:
        if id(layer.get_parameter("weight")) in reads.weights:
            _declare_linear_(layer)


def _may_be_linear(layer: nn.Module) -> bool:
    weight, bias = layer._parameters.get("weight"), getattr(layer, "bias", None)
    if weight is None or weight.ndim != 2 or is_layer(layer) or not is_leaf(layer):
        return False
    return bias is None or (isinstance(bias, nn.Parameter) and bias.shape == weight.shape[:1])


def _declare_linear_(layer: nn.Module) -> None:
    kind = type(layer)
    layer.__class__ = type(kind.__name__, (kind, nn.Linear), {})
    outputs, inputs = layer.get_parameter("weight").shape
    vars(layer).update(out_features=outputs, in_features=inputs)
    if not hasattr(layer, "bias"):
        layer.register_parameter("bias", None)


class _Reads(TorchFunctionMode):
    """Notes the tensors that ``F.linear`` reads as weights while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.weights: set[int] = set()

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func is nn.functional.linear:
            self.weights.add(id(given.get("weight", args[1] if len(args) > 1 else None)))
        return func(*args, **given)
