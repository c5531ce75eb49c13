"""Selection: the targets of a method, chosen by patterns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from lightning_compress.adapters import AdditivePath, additive_paths
from lightning_compress.adapters.paths import unknown_adapters
from lightning_compress.arguments import check_patterns
from lightning_compress.messages import listed, listed_by_reason
from lightning_compress.probes import keeps_zeros
from lightning_compress.targets.layers import is_layer, is_transposed

__all__ = ["FROZEN", "Selection", "Target", "check_alike", "is_named", "select"]

FROZEN = "frozen: name it in include to compress it"
"""The reason to leave a parameter alone that no gradient reaches."""

_PART = "a part of an adapter: the weight that it adds to is compressed"

_NORMALIZATION = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
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
            (it has a true attribute ``is_one_layer``, or adapters); patterns match that name too.
        path: what adapters add to the parameter, if it has some.
    """

    name: str
    aliases: tuple[str, ...]
    module: nn.Module
    parameter: nn.Parameter
    layer: str = ""
    path: AdditivePath | None = None

    @property
    def module_name(self) -> str:
        """Name of the holding module: ``"encoder.fc1"`` for ``"encoder.fc1.weight"``."""
        return self.name.rpartition(".")[0]

    @cached_property
    def transposed(self) -> bool:
        """Whether the parameter is a weight ``(in, out)``; others are ``(out, in, ...)``."""
        return is_transposed(self.module) and self.name.rpartition(".")[2] == "weight"

    @property
    def is_frozen_base(self) -> bool:
        """Whether the parameter is frozen, and adapters that train add to it: it has no gradient."""
        return self.path is not None and not self.parameter.requires_grad

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


def select(module: nn.Module, include: Sequence[str] = ("*",), exclude: Sequence[str] = ()) -> Selection:
    """Choose the parameters of ``module`` that a weight method compresses.

    Candidates are weights with two or more dimensions of linear, convolution, recurrent, attention and embedding
    layers. Biases and normalization are always left alone, and so are the tensors that a weight is computed from
    (parametrizations, weight and spectral norm, masks of ``torch.nn.utils.prune``, weight standardization). A frozen
    parameter (``requires_grad=False``) and a parameter of a module of your own are candidates when a pattern other than
    ``"*"`` matches them; the first dimension of the latter counts as the outputs. A frozen weight with a trained
    adapter (:mod:`~lightning_compress.adapters`) is a candidate like a trained one; the adapter is left alone.

    Args:
        module: the model.
        include: shell patterns, matched against the parameter's name (``"encoder.fc1.weight"``) and the name of the
            module that holds it (``"encoder.fc1"``).
        exclude: patterns of the same form; exclusion wins.

    Raises:
        TypeError: ``include`` or ``exclude`` is one string.
        ValueError: a pattern matches no parameter, nothing is left to compress, a lazy module has no shapes yet, or an
            included layer has adapters that are no known sum.

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
    _check_adapters(module, parameters, include, exclude)
    parts = _parts(parameters)
    skipped = {
        target.name: _reason_to_skip(target, include, exclude, is_part=id(target.parameter) in parts)
        for target in parameters
    }
    chosen = tuple(target for target in parameters if not skipped[target.name])
    if not chosen:
        raise ValueError(
            f"need include={tuple(include)} and exclude={tuple(exclude)} to leave a weight to compress, got none: "
            + "; ".join(listed_by_reason(skipped))
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
    paths = {path.weight_name: path for path in additive_paths(module)}
    layers = [name for name, layer in module.named_modules() if getattr(layer, "is_one_layer", False)]
    layers += [path.name for path in paths.values()] + list(unknown_adapters(module))
    return [
        Target(
            names[0],
            tuple(names),
            *holders[key],
            next((n for n in layers if names[0].startswith(f"{n}.")), ""),
            next((paths[name] for name in names if name in paths), None),
        )
        for key, names in aliases.items()
    ]


def _parts(parameters: Sequence[Target]) -> set[int]:
    """The parameters that are parts of adapters."""
    return {id(part) for target in parameters if target.path is not None for part in target.path.adapters}


def _check_adapters(
    module: nn.Module, parameters: Sequence[Target], include: Sequence[str], exclude: Sequence[str]
) -> None:
    """Refuse adapters that are no known sum, at a weight that would be compressed."""
    unknown = unknown_adapters(module)
    for target in parameters:
        if target.layer in unknown and _matches(target, include) and not _matches(target, exclude):
            raise ValueError(
                f"need adapters that add to a weight, as LoRA does, got {unknown[target.layer]} at {target.layer!r}: "
                f"merge it before fit, declare what it adds with adapters.declare, or name {target.layer!r} in exclude"
            )


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


def _reason_to_skip(target: Target, include: Sequence[str], exclude: Sequence[str], *, is_part: bool) -> str:
    if _matches(target, exclude):
        return "excluded"
    if not _matches(target, include):
        return "not included"
    return _PART if is_part else _reason_of_weight(target, include)


def _reason_of_weight(target: Target, include: Sequence[str]) -> str:
    if isinstance(target.module, _NORMALIZATION):
        return "normalization"
    if target.parameter.ndim < 2:
        return "bias or vector"
    if target.parameter.numel() == 0:
        return "it has no elements"
    if not target.parameter.is_floating_point():
        return "not floating point"
    if target.path is not None and len(target.aliases) > 1:
        return "tied: its adapter adds to it in one of the layers alone"
    if _is_parametrized(target):
        return "the weight is computed from it anew in every pass: remove the parametrization first"
    if target.name.endswith("weight") and not keeps_zeros(target.module):
        return "its layer computes with another weight, made from it, without its zeros, as weight standardization does"
    return "" if is_named(target, include) else _reason_to_be_named(target)


def _reason_to_be_named(target: Target) -> str:
    trained = [target.parameter, *(() if target.path is None else target.path.adapters)]
    if not any(parameter.requires_grad for parameter in trained):
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


def check_alike(targets: Sequence[Target], setting: str, way_out: str) -> None:
    """Refuse targets of several dtypes, or on several devices, where a setting puts their weights together.

    Raises:
        ValueError: they are not alike.
    """
    kinds: dict[str, list[str]] = {}
    for target in targets:
        kinds.setdefault(f"{target.parameter.dtype} on {target.parameter.device}", []).append(target.name)
    if len(kinds) > 1:
        found = "; ".join(f"{kind}: {listed(names)}" for kind, names in kinds.items())
        raise ValueError(f"need targets of one dtype on one device for {setting}, got {found}: use {way_out}")
