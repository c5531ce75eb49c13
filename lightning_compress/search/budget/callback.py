"""A budget: zeros and distinct values of each layer, chosen during training so that the file fits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lightning_compress.arguments import check_count
from lightning_compress.evidence import RunningMeans
from lightning_compress.lightnings import LightningModule, Trainer, rank_zero_info, rank_zero_warn
from lightning_compress.messages import listed
from lightning_compress.schedules import Cubic, Linear, Schedule
from lightning_compress.search.budget.allocation import choose
from lightning_compress.search.budget.composition import Composition
from lightning_compress.search.budget.estimates import LARGEST, Sample, options_of, sample, sparsity_for, totals
from lightning_compress.search.budget.files import archive_size, size_without
from lightning_compress.search.budget.tables import choice_table
from lightning_compress.targets import Selection, Target
from lightning_compress.training import SHARE, WeightCompression

__all__ = ["CompressionBudget"]

_NUMBERS = (4, 8, 16, 32, 0)  # distinct values of all layers, with each of which a fraction of zeros is tried
_PRUNED = 0.75  # strength at which the zeros are complete, and sharing begins
_AIMED, _LEAST, _MOST = 0.98, 0.96, 0.995  # of the budget: the last steps still change some values
_DECAY = 0.99  # of the mean of squared gradients
_HALVINGS = 12


class CompressionBudget(WeightCompression):
    """Make the ``.lcz`` file of the model fit a number of bytes, by zeros and shared values that the callback chooses.

    The callback decides three times in one ``fit``:

    1. When the schedule begins, it chooses the fraction of zeros. For several numbers of distinct values it finds the
       fraction with which the file fits, and takes the one of the least estimated cost. The smallest weights over all
       layers are then masked, more of them as the schedule advances.
    2. When the zeros are complete, at three quarters of the schedule, it chooses the number of distinct values of each
       layer that costs least within the bytes that are left.
    3. When the schedule ends, it measures the file, and moves the fraction of zeros until the file fits.

    From then on the zeros and the number of values stay fixed, and training goes on. Before each validation and at the
    end the file is measured again: if it has grown beyond the budget, some more weights are masked.

    The cost of a choice is the second-order estimate ``1/2 sum_i F_i (w_i - P(w)_i)^2``. The diagonal of the Fisher
    information ``F`` is a running mean of the squared gradients of the batches.

    Args:
        bytes: most bytes of the file that ``export(module, "model.lcz")`` writes, biases and all other tensors
            included.
        schedule: progress of the run -> how far the compression is, from 0 to 1; its begin ends the dense phase.
        every_n_steps: optimizer steps between two updates of the masks and of the shared values.
        include: patterns of the parameters to compress; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of the parameters to leave alone.

    Raises:
        ValueError: an argument is out of its range; in ``fit``, ``bytes`` is less than the model can take or more than
            the dense model takes, another method shares or quantizes the same weights, or FSDP2 shards them.
        TypeError: an argument is of another kind.

    Papers: LeCun, Denker and Solla, "Optimal brain damage", NeurIPS (1990), for the cost; Shoham and Gersho, "Efficient
    bit allocation for an arbitrary set of quantizers", IEEE Transactions on Acoustics, Speech and Signal Processing 36
    (1988), for the choice; Han, Mao and Dally, "Deep Compression", https://arxiv.org/abs/1510.00149 (2016), for zeros
    and shared values in one file.

    >>> CompressionBudget(bytes=0)
    Traceback (most recent call last):
    ValueError: need bytes >= 1, got bytes=0
    """

    _module = nn.Module()  # the one in the Trainer, during fit

    def __init__(
        self,
        *,
        bytes: int,  # noqa: A002 -- the wish is named as what it counts
        schedule: Schedule = Linear(0.15, 0.85),
        every_n_steps: int = 50,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        super().__init__(order=SHARE, schedule=schedule, every_n_steps=every_n_steps, include=include, exclude=exclude)
        check_count(bytes=bytes)
        self.bytes = bytes

    def select(self, module: nn.Module) -> Selection:
        self._module = module
        return super().select(module)

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._fisher = RunningMeans()
        self._zeros: float | None = None  # fraction, once it is chosen
        self._values: dict[str, int] = {}  # of each target, once they are chosen
        self._complete = False  # the file was fitted to the budget
        self._measured = 0  # bytes of the file
        self._composition = Composition(self.targets)

    def end(self) -> None:
        self._module = nn.Module()

    @property
    def takes_up(self) -> bool:
        return False

    @property
    def masks_in_place(self) -> bool:
        return self._composition.masks_in_place

    def check(self, target: Target) -> None:
        if isinstance(target.parameter, DTensor):
            raise ValueError(
                f"need whole parameters to measure the file, got {target.name!r}, which FSDP2 shards: use a single "
                "device or DDP, or PruningCallback and WeightSharingCallback"
            )
        self._composition.check(target)

    def describe(self) -> str:
        return f"a file of at most {self.bytes:,} bytes, by zeros and shared values, {self.schedule}"

    def start(self, module: LightningModule) -> None:
        self._check_alone()
        if self._loaded is None:
            self._check_budget()
        super().start(module)

    def restore(self) -> None:
        if self._loaded is not None:
            self._zeros, self._values = self._loaded["zeros"], dict(self._loaded["values"])
            self._complete, self._measured = self._loaded["complete"], self._loaded["measured"]
            self._composition.prune(self._zeros or 0.0)
            self._composition.share(self._values)
        super().restore()

    def state_dict(self) -> dict[str, Any]:
        chosen = {"zeros": self._zeros, "values": self._values}
        return {**super().state_dict(), **chosen, "complete": self._complete, "measured": self._measured}

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        if not self._values:
            self._fisher.observe({name: gradient.square() for name, gradient in gradients.items()})
        self._composition.observe(latents, gradients)

    def stepped(self) -> None:
        self._fisher.join(_DECAY)
        self._composition.stepped()

    def update(self, weights: Mapping[str, Tensor]) -> None:
        if not self._fisher and self._run is not None:
            self.strength = 0.0  # no optimizer has stepped yet: the next step asks again
            return
        self._strengthen()
        if self._zeros is None:
            self._choose_zeros(weights)
        if self.strength >= _PRUNED and not self._values:
            self._choose_values(self._composition.pruned(weights))
        self._composition.update(weights)
        if self.strength == 1.0:
            self._fit_zeros(weights)

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        self._composition.project_(weights)

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        self._composition.backward_(gradients, latents)

    def forget_(self, memories: Mapping[str, Tensor]) -> None:
        self._composition.forget_(memories)

    def falls_short(self) -> bool:
        if self.strength < 1.0:
            return False
        self._measured = self._measure({})
        return self._measured > self.bytes or not self._complete

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        self._composition.verify(weights)

    def metrics(self) -> dict[str, float]:
        return self._composition.metrics() | ({"bytes": float(self._measured)} if self._measured else {})

    def report(self) -> dict[str, object]:
        return {**super().report(), "bytes": self._measured, "zeros": self._zeros, "values": dict(self._values)}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        return {**self._composition.tensors(), "fisher": dict(self._fisher)}

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._fisher = RunningMeans({name: fisher.clone() for name, fisher in tensors["fisher"].items()})
        self._strengthen()
        self._composition.load_tensors(tensors, self.targets)

    def replace(self, parameters: Mapping[str, nn.Parameter | None], remove: Callable[[str, Tensor], Tensor]) -> None:
        super().replace(parameters, remove)
        self._complete = False  # a model with fewer channels takes fewer bytes: it may keep more of its weights

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_end(trainer, pl_module)
        if self.strength < 1.0:  # the run says so for every method
            return
        self._measured = self._measure({})
        if self._measured > self.bytes:
            rank_zero_warn(
                f"CompressionBudget missed bytes={self.bytes:,} by {self._measured - self.bytes:,}: the file takes "
                f"{self._measured:,} bytes with {self._zeros:.1%} zeros; ask for more bytes, or let it compress more "
                "parameters"
            )
        rank_zero_info(f"CompressionBudget: the file takes {self._measured:,} of {self.bytes:,} bytes")

    def _choose_zeros(self, weights: Mapping[str, Tensor]) -> None:
        """Choose the fraction of zeros that costs least, with the number of values that goes with it."""
        layers = {name: self._sample(name, weight) for name, weight in weights.items()}
        left = _AIMED * self.bytes - self._fixed()
        fractions = {number: sparsity_for(layers, number, left) for number in _NUMBERS}
        found = {number: totals(layers, fraction, number) for number, fraction in fractions.items()}
        fitting = [number for number, (_, size) in found.items() if size <= left] or [_NUMBERS[0]]
        self._zeros = fractions[min(fitting, key=lambda number: found[number][0])]
        self._composition.prune(self._zeros)

    def _choose_values(self, pruned: Mapping[str, Tensor]) -> None:
        """Choose the number of values of each layer, whose zeros are given."""
        options = {name: options_of(self._sample(name, weight)) for name, weight in pruned.items()}
        chosen = choose(options, _AIMED * self.bytes - self._fixed())
        self._values = {name: option.values for name, option in chosen.items()}
        self._composition.share(self._values)
        rank_zero_info(f"CompressionBudget chose for {self.bytes:,} bytes:\n{choice_table(chosen, pruned)}")

    def _fit_zeros(self, weights: Mapping[str, Tensor]) -> None:
        """Move the fraction of zeros until the file fits: to either side at first, and later only upwards."""
        zeros = self._zeros or 0.0
        size = self._size_with(zeros, weights)
        least, most = (0.0, 1.0) if self._complete else (_LEAST, _MOST)
        self._complete = True
        if size > most * self.bytes:
            low, high = zeros, LARGEST
        elif size < least * self.bytes and zeros:
            low, high = 0.0, zeros
        else:
            return
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            low, high = (low, middle) if self._size_with(middle, weights) <= _AIMED * self.bytes else (middle, high)
        self._zeros = high
        self._measured = self._size_with(high, weights)

    def _size_with(self, zeros: float, weights: Mapping[str, Tensor]) -> int:
        """Bytes of the file with another fraction of zeros, which the masks have from now on."""
        self._composition.prune(zeros)
        pruned = self._composition.pruned(weights)
        self._composition.share_(pruned)
        return self._measure(pruned)

    def _strengthen(self) -> None:
        """Give zeros and values the strengths that they have at this point of the schedule: one after the other."""
        pruned, shared = min(1.0, self.strength / _PRUNED), max(0.0, (self.strength - _PRUNED) / (1 - _PRUNED))
        self._composition.strengthen(Cubic(0.0, 1.0)(pruned), shared)

    def _check_alone(self) -> None:
        """Refuse methods that change the weights after this one, so that another file is written than is measured."""
        for method in () if self._run is None else self._run.methods:
            if method.order > self.order and (names := [name for name in self.targets if name in method.targets]):
                raise ValueError(
                    f"need the shared values of CompressionBudget in the file, got {type(method).__name__}, which "
                    f"changes them, on {listed(names)}: name them in exclude of one of the two"
                )

    def _check_budget(self) -> None:
        """Refuse a budget that the model cannot meet, or that it meets as it is."""
        fixed = self._fixed()
        dense = fixed + sum(target.parameter.nbytes for target in self.targets.values())
        if self.bytes >= dense:
            raise ValueError(
                f"need bytes below the {dense:,} that this model takes without compression, got bytes={self.bytes:,}: "
                "leave CompressionBudget out, or ask for less"
            )
        layers = {name: self._sample(name, target.parameter.detach()) for name, target in self.targets.items()}
        least = fixed + totals(layers, LARGEST, 2)[1]
        if self.bytes < least:
            raise ValueError(
                f"need bytes >= {least:,.0f} for this model, got bytes={self.bytes:,}: {fixed:,} bytes are what is "
                f"not compressed, such as biases, and the rest is what {LARGEST:.0%} zeros leave"
            )

    def _sample(self, name: str, weight: Tensor) -> Sample:
        fisher = self._fisher.get(name)
        if fisher is None:  # no gradient reaches it: it counts as the others do on average
            known = [float(one.mean()) for one in self._fisher.values()]
            fisher = torch.full_like(weight, sum(known) / len(known) if known else 1.0)
        return sample(weight, fisher)

    def _measure(self, weights: Mapping[str, Tensor]) -> int:
        return archive_size(self._module, self.targets, weights)

    def _fixed(self) -> int:
        return size_without(self._module, self.targets)
