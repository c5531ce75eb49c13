"""Merging: a layer with adapters becomes a plain one, whose weight is exactly the one that was trained.

The parameter holds ``P(latent + delta) - delta``, rounded. Its sum with ``delta`` is rounded again, so it would miss
zeros, grids and shared values by some units of the last place. These are known well enough to be met exactly.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.adapters.paths import AdditivePath, additive_paths, replaced_layers
from lightning_compress.arguments import check_module, check_patterns
from lightning_compress.messages import listed

__all__ = ["GRIDS", "MERGED", "NORMS", "merge", "merge_exactly", "merged_weight", "norms_of", "unload"]

GRIDS = "weight_grids"
"""Attribute of a module: name of a parameter -> its grid, an object whose ``project(weight)`` rounds to it."""

MERGED = "holds_merged_adapters"
"""Attribute of a module that its adapters were merged into."""

NORMS = "norms_with_adapters"
"""Attribute of a module: the norms of its weight and of the sum of adapters that it was compressed with."""

_HOOKS = (
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
_MOST_VALUES = 1 << 16


def merge(module: nn.Module, names: Collection[str] | None = None) -> nn.Module:
    """Merge the active adapters of ``module`` into their weights, in place, and leave the layers without adapters.

    Zeros, grids and shared values of compressed weights are met exactly. ``merge_and_unload()`` of PEFT does so too,
    after ``fit``. The trained copies of ``modules_to_save`` take the places of their originals.

    Args:
        module: of any kind; nothing happens to one without adapters.
        names: of the layers to merge, as in ``named_modules()``; all by default.

    Raises:
        TypeError: ``module`` is no module, or ``names`` is one name.
        ValueError: a name is not that of a layer with adapters.

    Returns:
        the module; the layer of the weight, if ``module`` itself is a layer with adapters.
    """
    check_module(module=module)
    layers = replaced_layers(module)
    if names is not None:
        check_patterns(names=tuple(names) if isinstance(names, set | frozenset) else names)
        if unknown := [name for name in names if name not in layers]:
            raise ValueError(
                f"need names of layers with adapters, got {listed(unknown)}; there are: {listed([*layers]) or 'none'}"
            )
        layers = {name: pair for name, pair in layers.items() if name in names}
    for path in additive_paths(module):
        if path.name not in layers:
            continue
        if hasattr(path.layer, "merge"):
            _merge_layer(path.layer, path.name)
        else:
            _write(path, merged_weight(path))
    return unload(module, layers.values())


def unload(module: nn.Module, layers: Collection[tuple[nn.Module, nn.Module]]) -> nn.Module:
    """Put the second of two layers in the place of the first, the one with adapters; see :func:`merge`."""
    bases = {id(layer): base for layer, base in layers}
    for layer, base in layers:
        _note(layer, base)
    for parent in list(module.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in bases:
                parent._modules[name] = bases[id(child)]
    return bases.get(id(module), module)


def merge_exactly(path: AdditivePath) -> None:
    """Let ``merge`` of a LoRA layer, which ``merge_and_unload`` calls, meet the trained weight."""
    if hasattr(path.layer, "merge"):
        vars(path.layer)["merge"] = partial(_merge_layer, path.layer, path.name)


@torch.no_grad()
def merged_weight(path: AdditivePath) -> Tensor:
    """The sum of a weight and its adapters, with the zeros, the grid or the shared values that it was compressed to.

    It is the plain sum if the weight was not compressed; and, with a warning, if its adapters have changed since.
    """
    weight, delta = path.parameter.detach(), path()
    precise = torch.promote_types(torch.promote_types(weight.dtype, delta.dtype), torch.float32)
    weight, delta = weight.to(precise), delta.to(precise)
    total, unit = weight + delta, torch.finfo(path.parameter.dtype).eps
    computed = 8 * torch.finfo(torch.float32).eps * delta.abs().flatten(1).amax(1).view(-1, *[1] * (delta.ndim - 1))
    total = torch.where(total.abs() <= unit / 2 * delta.abs() + computed, 0.0, total)  # where weight == -delta
    off = unit * torch.maximum(weight.abs(), total.abs()) + computed
    grid = vars(path.base).get(GRIDS, {}).get(path.key)
    if grid is None:
        _check_norms(path)
        return _with_shared_values(total, float(off.max()))
    projected: Tensor = grid.project(total)
    if bool(((projected - total).abs() <= off).all()):
        return projected
    warnings.warn(
        f"the merged weight of {path.name!r} is not on its grid: its adapters are not those that were trained on it, "
        "or a schedule had not ended",
        stacklevel=3,
    )
    return total


def norms_of(path: AdditivePath) -> tuple[float, float]:
    """The norms of the weight and of the present sum of adapters, by which other tensors are told from them."""
    weight, delta = (float(torch.linalg.vector_norm(tensor)) for tensor in (path.parameter.detach(), path()))
    return weight, delta


def _check_norms(path: AdditivePath) -> None:
    """Warn of adapters that are others than those of the run, beside the weight of the run."""
    trained = vars(path.base).get(NORMS)
    if trained is None:
        return
    (weight, delta), eps = norms_of(path), torch.finfo(path.parameter.dtype).eps
    same_weight = math.isclose(weight, trained[0], rel_tol=max(1e-6, eps))
    if same_weight and not math.isclose(delta, trained[1], rel_tol=max(1e-4, eps)):
        warnings.warn(
            f"the merged weight of {path.name!r} may lack its zeros and shared values: its adapters are not those that "
            "it was trained with",
            stacklevel=4,
        )


def _merge_layer(layer: Any, name: str, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
    """``merge`` of a LoRA layer; it meets the trained weight if all active adapters are merged."""
    (path,) = [replace(path, name=name) for path in additive_paths(layer) if path.layer is layer]
    whole = adapter_names is None and not layer.merged and not layer.disable_adapters
    exact = merged_weight(path) if whole else None
    type(layer).merge(layer, safe_merge=safe_merge, adapter_names=adapter_names)
    _note(path.layer, path.base)
    if exact is not None:
        _write(path, exact)


def _note(layer: nn.Module, base: nn.Module) -> None:
    """The base takes the place of the layer, with the hooks that are on it, such as those of quantizers."""
    vars(base)[MERGED] = True
    for name in _HOOKS:
        getattr(base, name).update(getattr(layer, name))
        getattr(layer, name).clear()


@torch.no_grad()
def _write(path: AdditivePath, weight: Tensor) -> None:
    path.parameter.copy_(weight)


def _with_shared_values(weight: Tensor, off: float) -> Tensor:
    """The same with one value in place of those that differ by rounding errors, if it holds few values."""
    values, counts = torch.unique(weight, return_counts=True)
    cluster = torch.cat([values.new_zeros(1), (values.diff() > off).to(values)]).cumsum(0).long()
    clusters = int(cluster[-1]) + 1
    if clusters > min(_MOST_VALUES, weight.numel() // 4) or clusters == len(values):
        return weight
    order = counts.argsort(stable=True)
    order = order[cluster[order].argsort(stable=True)]  # by cluster, then by count
    last = torch.searchsorted(cluster[order], torch.arange(clusters, device=cluster.device), right=True) - 1
    common: Tensor = values[order[last]]
    return common[cluster[torch.searchsorted(values, weight)]]
