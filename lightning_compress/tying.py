"""Tying: two layers of a model use the same parameters."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from lightning_compress.arguments import check_module, check_names
from lightning_compress.messages import listed

__all__ = ["tie"]


def tie(module: nn.Module, ties: Mapping[str, str]) -> None:
    """Let layers of equal shape use the same parameters and buffers.

    The state dict keeps the names of both layers, so its checkpoints load strictly into the model without ties. The
    optimizer steps each tied parameter once, and an archive stores it once. Attributes that are not tensors, such as
    strides and activation functions, are not tied.

    Call this function where the model is built, before its optimizers exist: in ``__init__`` or ``configure_model``.

    Args:
        module: the model.
        ties: name of a layer -> name of the layer whose tensors it uses from now on. A layer is any submodule, not
            ``module`` itself. A chain ``{"c": "b", "b": "a"}`` ties all three layers.

    Raises:
        TypeError: ``ties`` is no mapping of names, or ``module`` is no module.
        ValueError: a name is not the name of a layer; the ties form a circle; one of two tied layers contains the
            other; two tied layers differ in the names, shapes or dtypes of their tensors. The model is then unchanged.

    >>> net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    >>> tie(net, {"1": "0"})
    >>> net[1].weight is net[0].weight, list(net.state_dict()), len(list(net.parameters()))
    (True, ['0.weight', '0.bias', '1.weight', '1.bias'], 2)
    """
    check_module(module=module)
    check_names("{layer: layer whose tensors it uses}", ties=ties)
    layers = dict(module.named_modules(remove_duplicate=False))
    sources = {name: _source(name, ties) for name in ties}
    for name, source in sources.items():
        for each in (name, source):
            if not each or each not in layers:
                raise ValueError(f"need names of layers, got {each!r}; there are: {listed(filter(None, layers))}")
        _check(name, layers[name], source, layers[source])
    for name, source in sources.items():
        _tie(layers[name], layers[source])


def _source(name: str, ties: Mapping[str, str]) -> str:
    """The layer at the end of the chain that begins with ``name``."""
    source, seen = name, set()
    while source in ties:
        if source in seen:
            raise ValueError(f"need ties without a circle, got a circle through {source!r}")
        seen.add(source)
        source = ties[source]
    return source


def _check(name: str, layer: nn.Module, source: str, other: nn.Module) -> None:
    if f"{name}.".startswith(f"{source}.") or f"{source}.".startswith(f"{name}."):
        raise ValueError(f"need two layers of which none contains the other, got {name!r} and {source!r}")
    mine, theirs = (
        {key: (tuple(tensor.shape), tensor.dtype) for key, tensor in _tensors(each).items()} for each in (layer, other)
    )
    for key in sorted(mine.keys() | theirs.keys()):
        if mine.get(key) != theirs.get(key):
            raise ValueError(
                f"need layers with equal tensors to tie {name!r} to {source!r}, got {key!r} as "
                f"{_shown(mine.get(key))} and {_shown(theirs.get(key))}"
            )


def _shown(form: tuple[tuple[int, ...], object] | None) -> str:
    return "none" if form is None else f"{form[1]} {form[0]}"


def _tensors(layer: nn.Module) -> dict[str, Tensor]:
    parameters = dict(layer.named_parameters(remove_duplicate=False))
    return parameters | dict(layer.named_buffers(remove_duplicate=False))


def _tie(layer: nn.Module, source: nn.Module) -> None:
    for name, mine in layer.named_modules(remove_duplicate=False):
        theirs = source.get_submodule(name)
        for key in mine._parameters:
            mine._parameters[key] = theirs._parameters[key]
        for key in mine._buffers:
            mine._buffers[key] = theirs._buffers[key]
