"""Targets: the parameters of a model that a method compresses, and the reasons to leave the others alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lightning_compress.arguments import check_patterns
from lightning_compress.messages import listed, listed_by_reason
from lightning_compress.probes import keeps_zeros

__all__ = [
    "FROZEN",
    "Selection",
    "Target",
    "is_layer",
    "is_linear",
    "is_named",
    "is_transposed",
    "select",
]

FROZEN = "frozen: name it in include to compress it"
"""The reason to leave a parameter alone that no gradient reaches."""

_NORMALIZATION = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)
_LAYERS = (
    nn.Linear,
    nn.Bilinear,
    nn.modules.conv._ConvNd,
    nn.RNNBase,
    nn.RNNCellBase,
    nn.MultiheadAttention,
    nn.Embedding,
    nn.EmbeddingBag,
)


@dataclass(frozen=True, eq=False)
class Target:
    """One parameter: its name in the state dict, the module that holds it, and the parameter itself.

    Attributes:
        name: fully qualified name, ``"encoder.fc1.weight"``. A tied parameter has the name met first.
        aliases: every name under which the state dict holds this parameter, ``name`` first.
        module: the module that holds it.
        parameter: the parameter.
        layer: name of the layer that the holding module is a part of, if that layer consists of several modules
            (it has a true attribute ``is_one_layer``); patterns match that name too.
    """

    name: str
    aliases: tuple[str, ...]
    module: nn.Module
    parameter: nn.Parameter
    layer: str = ""

    @property
    def module_name(self) -> str:
        """Name of the holding module: ``"encoder.fc1"`` for ``"encoder.fc1.weight"``."""
        return self.name.rpartition(".")[0]

    @property
    def transposed(self) -> bool:
        """Whether the parameter is a weight ``(in, out)``; others are ``(out, in, ...)``."""
        return is_transposed(self.module) and self.name.rpartition(".")[2] == "weight"

    @property
    def shape(self) -> torch.Size:
        """The shape of the parameter as ``(out, in, ...)``."""
        return self.parameter.shape[::-1] if self.transposed else self.parameter.shape

    def outputs_first(self, tensor: Tensor) -> Tensor:
        """Transpose between the parameter's layout and ``(out, in, ...)``, as a view; its own inverse.

        >>> layer = nn.Linear(3, 2)
        >>> Target("weight", ("weight",), layer, layer.weight).outputs_first(layer.weight) is layer.weight
        True
        """
        return tensor.t() if self.transposed else tensor


@dataclass(frozen=True)
class Selection:
    """The targets, and for every other parameter the reason to leave it alone."""

    targets: tuple[Target, ...]
    skipped: dict[str, str]

    def __iter__(self) -> Iterator[Target]:
        return iter(self.targets)

    def __len__(self) -> int:
        return len(self.targets)

    def without(self, reasons: Mapping[str, str]) -> Selection:
        """The same, but for targets that are left alone after all.

        Args:
            reasons: name of the target -> the reason.
        """
        left = tuple(target for target in self.targets if target.name not in reasons)
        return Selection(left, {**self.skipped, **reasons})


def is_transposed(layer: nn.Module) -> bool:
    """Whether ``layer`` is a linear layer that holds its weight as ``(in, out)``: ``x @ weight + bias``.

    That is ``Conv1D`` of transformers, of which GPT-2 is built, known by its name and by its attribute ``nf``, the
    number of its outputs: the package is not imported.

    >>> is_transposed(nn.Linear(3, 2))
    False
    """
    weight = layer._parameters.get("weight")
    named = any(kind.__name__ == "Conv1D" for kind in type(layer).__mro__)
    return named and hasattr(layer, "nf") and weight is not None and weight.ndim == 2


def is_linear(layer: nn.Module) -> bool:
    """Whether ``layer`` is a linear layer, whichever way round it holds its weight."""
    return isinstance(layer, nn.Linear) or is_transposed(layer)


def is_layer(module: nn.Module) -> bool:
    """Whether ``module`` is a layer of torch with weights, or of a subclass of one, and no module of one's own.

    >>> is_layer(nn.LSTM(2, 2)), is_layer(nn.Sequential())
    (True, False)
    """
    return isinstance(module, _LAYERS) or is_transposed(module)


def select(module: nn.Module, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()) -> Selection:
    """Choose the parameters of ``module`` that a weight method compresses.

    Candidates are weights with two or more dimensions of linear, convolution, recurrent, attention and embedding
    layers. Biases and normalization are always left alone, and so are the tensors that a weight is computed from
    (parametrizations, weight and spectral norm, masks of ``torch.nn.utils.prune``, weight standardization). A frozen
    parameter (``requires_grad=False``) and a parameter of a module of your own are candidates when a pattern other than
    ``"*"`` matches them; the first dimension of the latter counts as the outputs.

    Args:
        module: the model.
        include: shell patterns, matched against the parameter's name (``"encoder.fc1.weight"``) and the name of the
            module that holds it (``"encoder.fc1"``).
        exclude: patterns of the same form; exclusion wins.

    Raises:
        TypeError: ``include`` or ``exclude`` is one string.
        ValueError: a pattern matches no parameter, nothing is left to compress, or a lazy module has no shapes yet.

    >>> net = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    >>> [target.name for target in select(net, exclude=("2",))]
    ['0.weight']
    """
    check_patterns(include=include, exclude=exclude)
    parameters = _parameters(module)
    lazy = [target.name for target in parameters if is_lazy(target.parameter)]
    if lazy:
        raise ValueError(
            f"need parameters that have their shapes, got lazy ones: {listed(lazy)}; run the module once, on one "
            "batch, before fit"
        )
    for argument, patterns in (("include", include), ("exclude", exclude)):
        for pattern in patterns:
            if not any(_matches(target, (pattern,)) for target in parameters):
                raise ValueError(
                    f"need {argument} patterns that match a parameter, got {pattern!r}; "
                    f"there are: {listed(target.name for target in parameters) or 'none'}"
                )
    skipped = {target.name: _reason_to_skip(target, include, exclude) for target in parameters}
    chosen = tuple(target for target in parameters if not skipped[target.name])
    if not chosen:
        raise ValueError(
            f"need include={tuple(include)} and exclude={tuple(exclude)} to leave a weight to compress, got none:"
            + "\n  ".join(["", *listed_by_reason(skipped)])
        )
    return Selection(chosen, {name: reason for name, reason in skipped.items() if reason})


def _parameters(module: nn.Module) -> list[Target]:
    """Every parameter once, with all its names."""
    aliases: dict[int, list[str]] = {}
    holders: dict[int, tuple[nn.Module, nn.Parameter]] = {}
    for module_name, holder in module.named_modules(remove_duplicate=False):
        for key, parameter in holder.named_parameters(recurse=False, remove_duplicate=False):
            names = aliases.setdefault(id(parameter), [])
            names.append(f"{module_name}.{key}" if module_name else key)
            holders.setdefault(id(parameter), (holder, parameter))
    layers = [name for name, layer in module.named_modules() if getattr(layer, "is_one_layer", False)]
    return [
        Target(names[0], tuple(names), *holders[key], next((n for n in layers if names[0].startswith(f"{n}.")), ""))
        for key, names in aliases.items()
    ]


def _matches(target: Target, patterns: Sequence[str]) -> bool:
    names = [name for alias in target.aliases for name in (alias, alias.rpartition(".")[0])]
    if target.layer:
        names += [target.layer, f"{target.layer}.{target.name.rpartition('.')[2]}"]
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def is_named(target: Target, include: Sequence[str]) -> bool:
    """Whether a pattern other than ``"*"`` matches the target.

    >>> (target,) = select(nn.Linear(3, 2))
    >>> is_named(target, ("*",)), is_named(target, ("*", "w*"))
    (False, True)
    """
    return _matches(target, [pattern for pattern in include if pattern != "*"])


def _reason_to_skip(target: Target, include: Sequence[str], exclude: Sequence[str]) -> str:
    if _matches(target, exclude):
        return "excluded"
    if not _matches(target, include):
        return "not included"
    if isinstance(target.module, _NORMALIZATION):
        return "normalization"
    if target.parameter.ndim < 2:
        return "bias or vector"
    if target.parameter.numel() == 0:
        return "it has no elements"
    if not target.parameter.is_floating_point():
        return "not floating point"
    if _is_parametrized(target):
        return "the weight is computed from it anew in every pass: remove the parametrization first"
    if target.name.endswith("weight") and not keeps_zeros(target.module):
        return "its layer computes with another weight, made from it, without its zeros, as weight standardization does"
    return "" if is_named(target, include) else _reason_to_be_named(target)


def _reason_to_be_named(target: Target) -> str:
    if not target.parameter.requires_grad:
        return FROZEN
    return "" if is_layer(target.module) else "of a module of your own: name it in include"


def _is_parametrized(target: Target) -> bool:
    """Whether the layer computes with another tensor, made from this one, which does not keep its zeros and grids."""
    key = target.name.rpartition(".")[2]
    made_from = set()
    for hook in target.module._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm):
            made_from |= {f"{hook.name}_g", f"{hook.name}_v"}
        elif isinstance(hook, SpectralNorm):
            made_from.add(f"{hook.name}_orig")
        elif isinstance(hook, BasePruningMethod):
            made_from.add(f"{hook._tensor_name}_orig")
    return isinstance(target.module, ParametrizationList) or key in made_from
