"""Choices: zeros and distinct values of all targets for a number of bytes, and their projection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.costs.allocation import choose
from lightning_compress.evidence import RunningMeans
from lightning_compress.search.budget.choice.composition import Composition
from lightning_compress.search.budget.choice.estimates import LARGEST, Sample, options_of, sample, sparsity_for, totals
from lightning_compress.search.budget.choice.files import archive_size, size_without
from lightning_compress.search.budget.choice.tables import choice_table
from lightning_compress.targets import Target

__all__ = ["AIMED", "Choice"]

AIMED = 0.98
"""Fraction of a budget that is aimed at: the last steps of a run still change some values."""

_NUMBERS = (4, 8, 16, 32, 0)  # distinct values of all layers, with each of which a fraction of zeros is tried
_DECAY = 0.99  # of the mean of squared gradients
_HALVINGS = 12


class Choice:
    """Chooses zeros and distinct values by their estimated cost, and projects the weights accordingly.

    Args:
        module: the model whose file is measured.
        targets: name -> parameter of it.
    """

    def __init__(self, module: nn.Module, targets: Mapping[str, Target]) -> None:
        self.composition = Composition(targets)
        """The projection."""
        self.fisher = RunningMeans()
        """Name -> running mean of squared gradients: the diagonal of the Fisher information."""
        self.zeros: float | None = None
        """Fraction of zeros over all targets, once it is chosen."""
        self.values: dict[str, int] = {}
        """Name -> number of distinct values, once they are chosen; 0 for floats."""
        self.batches = 0
        """Number of batches whose gradients have counted."""
        self.targets = targets
        """Name -> parameter."""
        self.measured = 0
        """Bytes of the file when it was last measured."""
        self._module = module

    def observe(self, gradients: Mapping[str, Tensor]) -> None:
        """Read the gradients of a batch."""
        self.fisher.observe({name: gradient.square() for name, gradient in gradients.items()})

    def stepped(self) -> None:
        """Let the gradients count that were observed, and weights move to other values: the optimizer has stepped."""
        self.composition.stepped()
        self.fisher.join(_DECAY)
        self.batches += 1

    def choose_zeros(self, weights: Mapping[str, Tensor], left: float) -> None:
        """Choose the fraction of zeros that costs least, with the number of values that goes with it.

        Args:
            weights: name -> latent.
            left: bytes for the targets.
        """
        layers = {name: self._sample(name, weight) for name, weight in weights.items()}
        fractions = {number: sparsity_for(layers, number, left) for number in _NUMBERS}
        found = {number: totals(layers, fraction, number) for number, fraction in fractions.items()}
        fitting = [number for number, (_, size) in found.items() if size <= left] or [_NUMBERS[0]]
        self._prune(fractions[min(fitting, key=lambda number: found[number][0])])

    def choose_values(self, weights: Mapping[str, Tensor], left: float) -> str:
        """Choose the number of values of each target, with new zeros; the choice as text.

        Args:
            weights: name -> latent.
            left: bytes for the targets.
        """
        pruned = self.composition.pruned(weights)
        options = {name: options_of(self._sample(name, weight)) for name, weight in pruned.items()}
        chosen = choose(options, left)
        self.values = {name: option.choice for name, option in chosen.items()}
        self.composition.share(self.values)
        return choice_table(chosen, pruned)

    def fit_zeros(self, weights: Mapping[str, Tensor], least: float, most: float, aimed: float) -> None:
        """Move the fraction of zeros until the file takes ``aimed`` bytes, if it is too small or too large.

        Args:
            weights: name -> latent.
            least: bytes below which zeros become fewer, if there are any.
            most: bytes above which they become more.
            aimed: bytes that the file then takes, or slightly fewer.
        """
        zeros = self.zeros or 0.0
        size = self._size_with(zeros, weights)
        if size > most:
            low, high = zeros, LARGEST
        elif size < least and zeros:
            low, high = 0.0, zeros
        else:
            return
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._size_with(middle, weights) <= aimed else (middle, high)
        self._size_with(high, weights)

    def measure(self) -> int:
        """Measure the file of the module as it is, in bytes; a collective."""
        self.measured = archive_size(self._module, self.targets, {})
        return self.measured

    def fixed(self) -> int:
        """Bytes of the file without the targets; a collective."""
        return size_without(self._module, self.targets)

    def others(self) -> list[str]:
        """Names of the tensors that are no targets, the largest first."""
        own = {name for target in self.targets.values() for name in target.aliases}
        sizes = {
            name: tensor.nbytes
            for name, tensor in self._module.state_dict().items()
            if isinstance(tensor, Tensor) and name not in own
        }
        return sorted(sizes, key=lambda name: -sizes[name])

    def floats(self) -> int:
        """Bytes of the targets as plain floats."""
        return sum(target.parameter.nbytes for target in self.targets.values())

    def least(self) -> float:
        """Estimated bytes of the targets with as many zeros, and as few values, as there may be."""
        layers = {name: self._sample(name, target.parameter.detach()) for name, target in self.targets.items()}
        return totals(layers, LARGEST, 2)[1]

    def state(self) -> dict[str, Any]:
        """Zeros and values, as plain numbers."""
        return {"zeros": self.zeros, "values": dict(self.values), "batches": self.batches}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Set zeros and values, before :meth:`load_tensors`."""
        self.composition.reset()
        self._prune(state["zeros"])
        self.values, self.batches = dict(state["values"]), state["batches"]
        self.composition.share(self.values)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """State for a checkpoint: kind -> parameter name -> tensor."""
        return {**self.composition.tensors(), "fisher": dict(self.fisher)}

    def copied_tensors(self) -> dict[str, dict[str, Tensor]]:
        """The same, as copies that do not change with the run."""
        return {kind: {name: one.clone() for name, one in named.items()} for kind, named in self.tensors().items()}

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]], targets: Mapping[str, Target]) -> None:
        """Restore the state that :meth:`tensors` gave, for these targets."""
        self.targets = targets
        self.fisher = RunningMeans({name: fisher.clone() for name, fisher in tensors["fisher"].items()})
        self.composition.load_tensors(tensors, targets)

    def _prune(self, zeros: float | None) -> None:
        self.zeros = zeros
        self.composition.prune(zeros or 0.0)

    def _size_with(self, zeros: float, weights: Mapping[str, Tensor]) -> int:
        """Bytes of the file with another fraction of zeros, which the masks have from now on."""
        self._prune(zeros)
        pruned = self.composition.pruned(weights)
        self.composition.share_(pruned)
        return archive_size(self._module, self.targets, pruned)

    def _sample(self, name: str, weight: Tensor) -> Sample:
        fisher = self.fisher.get(name)
        if fisher is None:  # no gradient reaches it: it counts as the others do on average
            known = [float(one.mean()) for one in self.fisher.values()]
            fisher = torch.full_like(weight, sum(known) / len(known) if known else 1.0)
        return sample(weight, fisher)
