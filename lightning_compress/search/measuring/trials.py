"""Trials: one layer alone, compressed by one method at full strength."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.channels import ChannelPruningCallback
from lightning_compress.channels.dependencies.discovery import discover
from lightning_compress.quantization.weights import clear_grids
from lightning_compress.search.budget.callback import CompressionBudget
from lightning_compress.search.projecting.projections import evidence_read, fresh, project_, show_evidence
from lightning_compress.training import WeightCompression
from lightning_compress.training.plans import begin_on

__all__ = ["Trial", "alone", "label_of", "trials_of"]


@dataclass(frozen=True, eq=False)
class Trial:
    """One layer and one method.

    Attributes:
        layer: name of the weight; with channels, of the first that produces them.
        number: place of the method in the list.
        method: the callback of the list.
        names: parameters that the method projects for this layer: the weight; with channels, those that share them.
        include: names of the weights that the method is given.
    """

    layer: str
    number: int
    method: WeightCompression
    names: tuple[str, ...]
    include: tuple[str, ...]

    @property
    def key(self) -> tuple[str, int]:
        """It tells the trial apart from the others: layer and number of the method."""
        return self.layer, self.number


def trials_of(methods: Sequence[WeightCompression], module: nn.Module, batch: Any) -> list[Trial]:
    """Every layer that a method compresses, with every method.

    Raises:
        ValueError: a method cannot compress the module, or cannot compress a layer alone.
    """
    return [trial for number, method in enumerate(methods) for trial in _trials_of(number, method, module, batch)]


def _trials_of(number: int, method: WeightCompression, module: nn.Module, batch: Any) -> Iterator[Trial]:
    if isinstance(method, CompressionBudget):
        raise ValueError(
            f"need methods with an amount for each layer, got {method!r}, whose amount is that of the whole model: "
            "pass PruningCallback(...), WeightSharingCallback(...) or QATCallback(...)"
        )
    if not isinstance(method, ChannelPruningCallback):
        selection = begin_on(fresh(method), module, batch)
        yield from (Trial(target.name, number, method, (target.name,), (target.name,)) for target in selection)
        return
    if method.channels is None:
        raise ValueError(
            f"need ChannelPruningCallback(channels=...) to prune the channels of one layer alone, got {method!r}: "
            "other budgets are those of the whole model"
        )
    example = getattr(module, "example_input_array", None) if method.example_input is None else method.example_input
    _, found = discover(module, example, batch, remove_blocks=False)
    groups = found.chosen(module, method.include, method.exclude).groups
    order = [name for name, _ in module.named_parameters()]
    layers = [sorted({order.index(part.name) for part in group.slices if part.role == "out"}) for group in groups]
    for producers in ([order[place] for place in places] for places in sorted(layers)):
        names = tuple(target.name for target in begin_on(_for_layers(method, producers), module, batch))
        yield Trial(producers[0], number, method, names, tuple(producers))


@contextmanager
def alone(
    trial: Trial, module: nn.Module, batch: Any, gradients: Mapping[str, Tensor], run: Callable[[], object]
) -> Iterator[dict[str, Tensor]]:
    """Hold one layer at its projection, and then at its weight again.

    Args:
        trial: the layer and the method.
        module: a copy of the user's module, changed in place until the end.
        batch: of the data, for methods that trace the module.
        gradients: name -> mean gradient, for criteria that read gradients.
        run: a forward pass, for criteria that read inputs.

    Yields:
        name -> weight before the projection.

    Raises:
        ValueError: the method finds nothing to project.
    """
    parameters = dict(module.named_parameters())
    before = {name: parameters[name].detach().clone() for name in trial.names}
    method = _for_layers(trial.method, trial.include)
    try:
        with torch.enable_grad():  # to follow channels through the module
            begin_on(method, module, batch)
        show_evidence(method, gradients, run)
        if project_([method]):
            raise ValueError(
                f"need {evidence_read(method)} at {trial.layer!r} for the criterion of {trial.method!r}, got none: "
                "the layer takes no part in the loss"
            )
        yield before
    finally:
        method.end()
        with torch.no_grad():
            for name, weight in before.items():
                parameters[name].copy_(weight)
        clear_grids(module)


def _for_layers(method: WeightCompression, names: Sequence[str]) -> WeightCompression:
    """A fresh copy of a method that compresses the named weights alone."""
    copied = fresh(method)
    copied.include, copied.exclude = tuple(re.sub(r"([*?\[])", r"[\1]", name) for name in names), ()
    return copied


def label_of(method: WeightCompression) -> str:
    """The amount of a method in a few characters: its first argument that is a number, before the schedule.

    >>> from lightning_compress import BinarizationCallback, LowRankCallback, PruningCallback
    >>> label_of(PruningCallback(0.9)), label_of(LowRankCallback(energy=0.8)), label_of(BinarizationCallback())
    ('sparsity=0.9', 'energy=0.8', 'Binarization')
    """
    for name in inspect.signature(type(method).__init__).parameters:
        value = getattr(method, name, None)
        if name == "schedule":
            break
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f"{name}={value:g}"
    return type(method).__name__.removesuffix("Callback")
