"""The methods of the table, and what each promises, counted from the weights alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_compress import (
    NM,
    ChannelPruningCallback,
    DistillationCallback,
    PerTensor,
    PruningCallback,
    QATCallback,
    WeightSharingCallback,
)
from lightning_compress.adapters import additive_paths
from lightning_compress.adapters.merging import merged_weight
from lightning_compress.distillation.losses import mse
from lightning_compress.example_inputs import call, evaluating
from lightning_compress.schedules import Linear
from lightning_compress.training import WeightCompression

__all__ = ["METHODS", "Method", "PromiseError", "coverage", "flops"]

RAMP: dict[str, Any] = {"schedule": Linear(0.1, 0.6), "every_n_steps": 3}


class PromiseError(Exception):
    """A promise that does not hold."""


@dataclass(frozen=True)
class Method:
    """Callbacks for one Trainer, and their promise.

    Args:
        callbacks: makes them, of (module that is about to be trained, example, include).
        promise: of (callbacks, module, example, FLOPs of the dense module); raises ``PromiseError``.
        plain: a checkpoint is loaded by ``load_state_dict``, without this package.
    """

    callbacks: Callable[[nn.Module, Any, Sequence[str]], list[Any]]
    promise: Callable[[Sequence[Any], nn.Module, Any, int], None]
    plain: bool = True


def flops(module: nn.Module, example: Any) -> int:
    """FLOPs of one forward pass, as torch counts them."""
    with evaluating(module), FlopCounterMode(display=False) as counter:
        call(module, example)
    return int(counter.get_total_flops())


def coverage(callbacks: Sequence[Any], module: nn.Module) -> float:
    """Fraction of the weights (parameters of two dimensions or more) that the first weight method compresses."""
    if not isinstance(callbacks[0], WeightCompression) or isinstance(callbacks[0], ChannelPruningCallback):
        return 1.0
    weights = {name: p.numel() for name, p in module.named_parameters() if p.ndim > 1}
    return sum(weights.get(name, 0) for name in callbacks[0].targets) / sum(weights.values())


def _weights(callback: Any, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and weights of the targets as they stand in the module, outputs first; with their adapters merged."""
    merged = {path.weight_name: merged_weight(path) for path in additive_paths(module)}
    for name, target in callback.targets.items():
        weight = merged[name] if name in merged else module.get_parameter(name)
        yield name, target.outputs_first(weight.detach())


def _require(holds: bool, complaint: str) -> None:
    if not holds:
        raise PromiseError(complaint)


def _zeros(fraction: float) -> Callable[..., None]:
    def check(callbacks: Sequence[Any], module: nn.Module, *_: Any) -> None:
        weights = [weight for _, weight in _weights(callbacks[0], module)]
        total, zeros = sum(w.numel() for w in weights), sum(int((w == 0).sum()) for w in weights)
        _require(abs(zeros - fraction * total) <= 1, f"{zeros} of {total} weights are zero, not {fraction:.0%}")

    return check


def _groups_of_four(callbacks: Sequence[Any], module: nn.Module, *_: Any) -> None:
    for name, weight in _weights(callbacks[0], module):
        nonzeros = (weight.movedim(1, -1).reshape(-1, 4) != 0).sum(1)
        _require(bool((nonzeros <= 2).all()), f"{int((nonzeros > 2).sum())} groups of {name} hold more than two")


def _values(most: int) -> Callable[..., None]:
    def check(callbacks: Sequence[Any], module: nn.Module, *_: Any) -> None:
        for name, weight in _weights(callbacks[0], module):
            _require(len(weight.unique()) <= most, f"{name} holds {len(weight.unique())} values, not {most}")

    return check


def _integers(callbacks: Sequence[Any], module: nn.Module, *_: Any) -> None:
    """Every output channel is a step times integers from -127 to 127, for one of the steps that its largest allows."""
    for name, weight in _weights(callbacks[0], module):
        rows = weight.flatten(1).double()
        largest = rows.abs().amax(1, keepdim=True).clamp_min(1e-30)
        off = torch.stack([_distance_to_integers(rows / largest * most) for most in range(1, 129)]).amin(0)
        _require(bool((off < 1e-3).all()), f"{int((off >= 1e-3).sum())} channels of {name} are on no grid of 8 bits")


def _distance_to_integers(rows: Tensor) -> Tensor:
    return (rows - rows.round()).abs().amax(1)


def _narrow(callbacks: Sequence[Any], module: nn.Module, example: Any, dense: int) -> None:
    left = flops(module, example) / dense
    _require(left < 0.95, f"{left:.0%} of the FLOPs are left, of 80 % of the MACs asked for")


def _taught(callbacks: Sequence[Any], module: nn.Module, *_: Any) -> None:
    _require(
        type(module).__name__ != "Taught" and not hasattr(module, "objective"), "the module kept the derived class"
    )


def _sparse_values_on_grids(callbacks: Sequence[Any], module: nn.Module, *_: Any) -> None:
    for name, weight in _weights(callbacks[0], module):
        _require(len(weight.unique()) <= 16, f"{name} holds {len(weight.unique())} values, not 16")
    weights = [weight for _, weight in _weights(callbacks[0], module)]
    zeros = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
    _require(zeros >= 0.5 - 1e-3, f"{zeros:.1%} of the weights are zero, not 50 %")
    _integers(callbacks[2:], module)


METHODS = {
    "pruning 0.8": Method(
        lambda module, example, include: [PruningCallback(0.8, include=include, **RAMP)], _zeros(0.8)
    ),
    "2:4": Method(
        lambda module, example, include: [PruningCallback(pattern=NM(2, 4), include=include, **RAMP)], _groups_of_four
    ),
    "8/8 bits": Method(
        lambda module, example, include: [QATCallback(8, activation_bits=8, every_n_steps=3, include=include)],
        _integers,
        plain=False,
    ),
    "16 values": Method(
        lambda module, example, include: [WeightSharingCallback(16, include=include, **RAMP)], _values(16)
    ),
    "channels": Method(
        lambda module, example, include: [
            ChannelPruningCallback(0.8, round_to=1, example_input=example, include=include, **RAMP)
        ],
        _narrow,
        plain=False,
    ),
    "distillation": Method(
        lambda module, example, include: [DistillationCallback(copy.deepcopy(module), losses=[mse], alpha=0.5)],
        _taught,
    ),
    "all weight methods": Method(
        lambda module, example, include: [
            PruningCallback(0.5, include=include, **RAMP),
            WeightSharingCallback(16, include=include, **RAMP),
            QATCallback(8, activation_bits=8, granularity=PerTensor(), every_n_steps=3, include=include),
        ],
        _sparse_values_on_grids,
        plain=False,
    ),
}
"""Title of a column -> the method."""
