"""Weights on grids of a given number of bits, or of one that is chosen for each tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_compress.arguments import check_between, check_count
from lightning_compress.evidence import RunningMeans
from lightning_compress.quantization.bits.mixed import MixedBits, choose_bits, told
from lightning_compress.quantization.granularities import Granularity
from lightning_compress.quantization.grids import Grid
from lightning_compress.quantization.scales import Scale, check_scale
from lightning_compress.quantization.weights import WeightGrids
from lightning_compress.schedules import Schedule
from lightning_compress.targets import Selection, Target

__all__ = ["IntegerGrids"]

_BATCHES = 10  # whose gradients are read before the bits are chosen
_DECAY = 0.99  # of the mean of squared gradients


class IntegerGrids(WeightGrids):
    """Projects weights onto grids of ``weight_bits`` bits that a scale fits.

    With :class:`~.mixed.MixedBits` the squared gradients of the first batches are averaged. When the schedule begins,
    and ten batches have come or the run ends, the bits of each tensor are chosen, for the rest of the run.

    Args:
        weight_bits: 2 to 8, or an average.
        scale: fits a grid to rows of weights.
        granularity: which weights share a scale.
        schedule: progress of the run -> strength.
        every_n_steps: optimizer steps between two fits of the grids.
        include: patterns of parameters to quantize.
        exclude: patterns of parameters to leave alone.

    Raises:
        ValueError: ``weight_bits`` is out of its range, or the grids of ``scale`` differ in kind between them.
        TypeError: an argument is of another kind.
    """

    def __init__(
        self,
        *,
        weight_bits: int | MixedBits,
        scale: Scale,
        granularity: Granularity,
        schedule: Schedule,
        every_n_steps: int,
        include: Sequence[str],
        exclude: Sequence[str],
    ) -> None:
        if not isinstance(weight_bits, MixedBits):
            check_count(0, weight_bits=weight_bits)
            check_between(2, 8, weight_bits=weight_bits)
        kinds = [check_scale(scale, bits) for bits in _choices(weight_bits)]
        if len(set(kinds)) > 1:
            raise ValueError(
                f"need a scale whose grids are of one kind for {weight_bits}, got "
                f"{' and '.join(sorted({kind.__name__ for kind in kinds}))}: give one number as weight_bits"
            )
        super().__init__(
            kind=kinds[0],
            granularity=granularity,
            schedule=schedule,
            every_n_steps=every_n_steps,
            include=include,
            exclude=exclude,
        )
        self.weight_bits = weight_bits
        self.scale = scale
        self._bits: dict[str, int] = {}
        self.news = ""
        """The choice in words, for the user, once it is made."""

    def bits_of(self, name: str) -> int:
        """Number of bits of a weight; of one whose bits are not chosen yet, the usual number."""
        mixed = self.weight_bits
        return self._bits.get(name, mixed.usual) if isinstance(mixed, MixedBits) else mixed

    def fit_grid(self, name: str, rows: Tensor) -> Grid:
        return self.scale(rows, self.bits_of(name))

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self._bits = {}
        self._fisher, self._batches = RunningMeans(), 0

    def check(self, target: Target) -> None:
        super().check(target)
        if isinstance(self.weight_bits, MixedBits) and target.is_frozen_base:
            raise ValueError(
                f"need weights with gradients to choose bits by, got {target.name!r}, which is frozen beside an "
                "adapter: give one number as weight_bits, or exclude it"
            )

    def restore(self) -> None:
        if self._loaded is not None:
            self._bits, self._batches = dict(self._loaded.get("bits", {})), self._loaded.get("batches", 0)
        super().restore()

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "bits": dict(self._bits), "batches": self._batches}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        return {"fisher": dict(self._fisher)}

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        self._fisher = RunningMeans({name: fisher.clone() for name, fisher in tensors.get("fisher", {}).items()})

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        if self._is_to_choose and self._run is not None:
            self._fisher.observe({name: gradient.square() for name, gradient in gradients.items()})

    def stepped(self) -> None:
        if self._is_to_choose:
            self._fisher.join(_DECAY)
            self._batches += 1

    def update(self, weights: Mapping[str, Tensor]) -> None:
        if self._is_to_choose and self._waits:
            self.strength = 0.0  # the next step asks again
            return
        self._choose(weights)
        super().update(weights)

    def predict(self) -> str:
        mixed = isinstance(self.weight_bits, MixedBits)
        return "its bits are predicted by the weights alone: training chooses them by gradients" if mixed else ""

    def report(self) -> dict[str, object]:
        return {**super().report(), **({"bits": dict(self._bits)} if self._bits else {})}

    @property
    def _is_to_choose(self) -> bool:
        return isinstance(self.weight_bits, MixedBits) and not self._bits

    @property
    def _waits(self) -> bool:
        """Whether more gradients are to come; none in a plan, nor after the last step of a short run."""
        return self._run is not None and self._batches < _BATCHES and self._run.progress.fraction() < 1.0

    def _choose(self, weights: Mapping[str, Tensor]) -> None:
        """Choose the bits of all weights, once; a plan, which has no gradients, chooses by the squared errors alone."""
        if not isinstance(self.weight_bits, MixedBits) or self._bits:
            return
        rows = {name: self._rows(name, weight) for name, weight in weights.items()}
        fisher = {name: self._rows(name, self._fisher[name]) for name in weights if name in self._fisher}
        self._bits = choose_bits(
            self.weight_bits, rows, fisher, lambda name, weight, bits: self.scale(weight, bits).nearest(weight)
        )
        self._fisher = RunningMeans()
        self.news = told(self._bits, {name: weight.numel() for name, weight in rows.items()})


def _choices(weight_bits: int | MixedBits) -> Sequence[int]:
    return weight_bits.choices if isinstance(weight_bits, MixedBits) else (weight_bits,)
