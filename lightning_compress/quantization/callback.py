"""Quantization and binarization during training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.adapters.views import plain_view
from lightning_compress.arguments import check_between, check_function
from lightning_compress.carried import carry
from lightning_compress.lightnings import LightningModule, Trainer, rank_zero_info, rank_zero_warn
from lightning_compress.quantization import observers, scales
from lightning_compress.quantization.activations.calibration import Calibration
from lightning_compress.quantization.activations.ranges import RangeOptimizer
from lightning_compress.quantization.activations.settings import activations_text, check_activations
from lightning_compress.quantization.activations.statistics import FrozenStatistics
from lightning_compress.quantization.bits.integer_grids import IntegerGrids
from lightning_compress.quantization.bits.mixed import MixedBits
from lightning_compress.quantization.dataflow.readers import possible_layers
from lightning_compress.quantization.granularities import Granularity, PerChannel
from lightning_compress.quantization.grids import BinaryGrid, Grid
from lightning_compress.quantization.observers import Observer
from lightning_compress.quantization.profiles import OnnxRuntime, Profile
from lightning_compress.quantization.records import QUANTIZATION, detach, recognize_grids
from lightning_compress.quantization.scales import Scale, check_profile
from lightning_compress.quantization.weights import WeightGrids
from lightning_compress.schedules import Schedule, Step
from lightning_compress.targets import Selection, Target

__all__ = ["BinarizationCallback", "QATCallback"]


class _Quantization(WeightGrids):
    """Makes every checkpoint of the module carry its grids."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        recognize_grids(pl_module, (self.kind,))
        carry(pl_module, QUANTIZATION)
        if stage == "fit":
            detach(pl_module)

    def detach_(self, module: nn.Module) -> None:
        detach(module)


class QATCallback(_Quantization, IntegerGrids):
    """Quantization-aware training: weights and activations on integer grids.

    From the schedule's begin on, the model in the Trainer holds quantized weights at every validation and in every
    checkpoint, while the optimizer updates their full-precision latents (straight-through estimator). The first batch
    is traced, and quantizers are attached as hooks wherever integer kernels need them. They stay on the modules after
    ``fit``. The state dict does not contain them: load a checkpoint with
    :func:`~lightning_compress.loading.load_compressed`, or with this callback in the Trainer.

    Before every validation and at the end of every epoch, each bias is rounded to a multiple of ``input scale * weight
    scale``, the unit in which integer kernels add. If batch normalization follows, its running mean changes instead.

    Args:
        weight_bits: 2 to 8; 2 bits on a symmetric grid are ternary weights. On x86 CPUs without VNNI instructions
            choose 7: their int8 kernels saturate with 8. :class:`~.bits.mixed.MixedBits` chooses a number for each
            tensor when the schedule begins, at an average.
        activation_bits: 4 to 8, or None to quantize weights alone: then ``observer``, ``decay``, ``range_lr`` and
            ``freeze_ranges_at`` are refused, as they are with dynamic activations (``profile=profiles.Dynamic()``).
        granularity: which weights share a scale; see :mod:`~lightning_compress.quantization.granularities`.
        scale: fits a grid to the weights; see :mod:`~lightning_compress.quantization.scales`.
        observer: the range of one batch of activations; see :mod:`~lightning_compress.quantization.observers`.
        decay: of the running ranges, in [0, 1): ``range = decay * range + (1 - decay) * observed``. An
            observation holds at least 1,024 values, those of several batches if one has fewer.
        range_lr: learning rate of the ranges of activations. At 0 they are running means of the observed ranges. Above
            0 they are running means until the schedule begins, and are then trained: one step in ``every_n_steps``
            moves a range by its gradient, by at most about this fraction of its width.
        profile: of the runtime that the model is trained for; see :mod:`~lightning_compress.quantization.profiles`.
            Without activation quantizers its rule for scales of weights alone counts.
        freeze_ranges_at: fraction of the run after which the ranges of activations are frozen, in [0, 1].
        freeze_norms_at: fraction of the run after which the statistics of batch normalization are frozen, in [0, 1].
            With frozen statistics the network needs a small learning rate: SGD may diverge.
        schedule: progress of the run -> strength; between 0 and 1 a weight is that fraction of the way to its grid.
        every_n_steps: optimizer steps between two fits of the grids, and between two observations of the ranges.
        include: patterns of parameters to quantize; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of parameters to leave alone.

    Raises:
        ValueError: an argument is out of its range; in ``fit``, a weight does not fit the granularity, or two callbacks
            quantize one weight.
        TypeError: an argument is of another kind, or ``scale`` does not return a grid.
        RuntimeError: at the end of ``fit``, a weight is off its grid.

    Papers: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", https://arxiv.org/abs/1712.05877 (2018); Bai et al., "ProxQuant: Quantized Neural Networks via Proximal
    Operators", https://arxiv.org/abs/1810.00861 (2018); Esser et al., "Learned Step Size Quantization",
    https://arxiv.org/abs/1902.08153 (2020), for ``range_lr``.

    >>> QATCallback(weight_bits=1)
    Traceback (most recent call last):
    ValueError: need 2 <= weight_bits <= 8, got weight_bits=1
    """

    changeable = _Quantization.changeable | {"observer", "decay", "range_lr", "freeze_ranges_at", "freeze_norms_at"}

    def __init__(
        self,
        weight_bits: int | MixedBits = 8,
        *,
        activation_bits: int | None = 8,
        granularity: Granularity = PerChannel(),
        scale: Scale = scales.absmax,
        observer: Observer = observers.minmax,
        decay: float = 0.9,
        range_lr: float = 0.0,
        profile: Profile = OnnxRuntime(),
        freeze_ranges_at: float = 0.8,
        freeze_norms_at: float = 1.0,
        schedule: Schedule = Step(at=0.2),
        every_n_steps: int = 10,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        check_function("values", "bits", scale=scale, observer=observer)
        super().__init__(
            weight_bits=weight_bits,
            scale=scale,
            granularity=granularity,
            schedule=schedule,
            every_n_steps=every_n_steps,
            include=include,
            exclude=exclude,
        )
        check_profile(profile, scale, weight_bits if isinstance(weight_bits, int) else weight_bits.usual)
        ranges = {"decay": decay, "range_lr": range_lr, "freeze_ranges_at": freeze_ranges_at}
        check_activations(QATCallback, activation_bits, profile, observer=observer, **ranges)
        check_between(0, 1, freeze_norms_at=freeze_norms_at)
        self.activation_bits = activation_bits
        self.observer, self.decay = observer, decay
        self.range_lr = range_lr
        self.profile = profile
        self.freeze_ranges_at, self.freeze_norms_at = freeze_ranges_at, freeze_norms_at
        self._statistics = FrozenStatistics()

    def describe(self) -> str:
        bits, scale = self.weight_bits, getattr(self.scale, "__name__", repr(self.scale))
        activations = activations_text(self.activation_bits, self.profile, self.range_lr)
        weights = f"weights of {bits}" if isinstance(bits, MixedBits) else f"{bits}-bit weights"
        return f"{weights}, {activations}, {self.granularity}, scales by {scale}, {self.schedule}"

    def update(self, weights: Mapping[str, Tensor]) -> None:
        super().update(weights)
        if self.news and self._run is not None:
            rank_zero_info(f"QATCallback chose {self.news}")
        self.news = ""

    @property
    def takes_up(self) -> bool:
        return self.activation_bits is None  # the first batch has placed the quantizers of activations

    def begin(self, selection: Selection) -> None:
        super().begin(selection)
        self.calibration: Calibration | None = None

    def end(self) -> None:
        self._statistics.thaw()
        if self.calibration is not None:
            self.calibration.close()
            self.calibration.switch(enabled=self.strength > 0, observing=False)

    def state_dict(self) -> dict[str, Any]:
        calibration = None if self.calibration is None else self.calibration.state_dict()
        return {**super().state_dict(), "calibration": calibration}

    def start(self, module: LightningModule) -> None:
        state = None if self._loaded is None else self._loaded["calibration"]
        super().start(module)
        self.calibration = self._calibration_of(module, self.targets.values())
        if self.calibration is not None:
            self.calibration.open(state)

    def ship_(self, module: nn.Module, example: Any) -> None:
        super().ship_(module, example)
        if (calibration := self._calibration_of(module, self.select(module))) is not None:
            calibration.place_on(example)

    def _calibration_of(self, module: nn.Module, targets: Iterable[Target]) -> Calibration | None:
        if self.activation_bits is None:
            return None
        layers = possible_layers(plain_view(module), [target.parameter for target in targets])
        optimizer = RangeOptimizer(self.range_lr) if self.range_lr > 0 else None
        return Calibration(module, layers, self.activation_bits, self.observer, self.decay, self.profile, optimizer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        if self._run is None:
            return
        progress = self._run.progress.fraction()
        if progress >= self.freeze_norms_at:
            self._statistics.freeze(pl_module)
        if self.calibration is None:
            return
        if not self.calibration.placed:
            self.calibration.watch()
            return
        self._step = trainer.global_step
        self._observing = progress < self.freeze_ranges_at and self._step % self.every_n_steps == 0
        self.calibration.switch(enabled=self.strength > 0, observing=self._observing)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: Any) -> None:
        super().on_train_batch_end(trainer, pl_module, *rest)
        if self.calibration is None:
            return
        if not self.calibration.placed:
            self.calibration.place()
            if self.calibration.missed:
                rank_zero_warn(self.calibration.missed_text())
        elif self._observing:
            self.calibration.update(stepped=trainer.global_step != self._step)
        self.calibration.switch(enabled=self.strength > 0, observing=False)
        if self._run is not None and self._run.progress.pauses():
            # Not when a validation begins: a run that resumes from a checkpoint of this batch skips it.
            self._round_biases(pl_module)
            if self._run.average.model is not None:
                self._round_biases(self._run.average.model)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_fit_end(trainer, pl_module)
        self._round_biases(pl_module)

    def _round_biases(self, model: nn.Module) -> None:
        # Only when the model is validated or saved: rounding after every step would undo small updates.
        if self.calibration is not None and self.strength == 1.0:
            self.calibration.round_biases(model)


class BinarizationCallback(_Quantization):
    """Binary weights: ``-a`` or ``+a``, with one scale ``a = mean |w|`` per output channel.

    The gradient passes straight through the sign where ``|latent| <= 1`` and is zero elsewhere. An exact zero stays
    zero, so that pruned weights stay pruned.

    Args:
        schedule: progress of the run -> strength; between 0 and 1 a weight is that fraction of the way to its sign.
        every_n_steps: optimizer steps between two fits of the scales.
        include: patterns of parameters to binarize; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of parameters to leave alone.

    Raises:
        ValueError: an argument is out of its range; in ``fit``, two callbacks quantize one weight.
        TypeError: an argument is of another kind.
        RuntimeError: at the end of ``fit``, a channel has more than the two values.

    Papers: Courbariaux et al., "BinaryConnect: Training Deep Neural Networks with binary weights during propagations",
    https://arxiv.org/abs/1511.00363 (2015); Rastegari et al., "XNOR-Net: ImageNet Classification Using Binary
    Convolutional Neural Networks", https://arxiv.org/abs/1603.05279 (2016).

    >>> BinarizationCallback(every_n_steps=0)
    Traceback (most recent call last):
    ValueError: need every_n_steps >= 1, got every_n_steps=0
    """

    def __init__(
        self,
        *,
        schedule: Schedule = Step(at=0.2),
        every_n_steps: int = 10,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        super().__init__(
            kind=BinaryGrid,
            granularity=PerChannel(),
            schedule=schedule,
            every_n_steps=every_n_steps,
            include=include,
            exclude=exclude,
        )

    def describe(self) -> str:
        return f"binary weights, one scale per output channel, {self.schedule}"

    def fit_grid(self, name: str, rows: Tensor) -> Grid:
        return scales.mean(rows)

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        """At strength 1 the weights of a channel are -a, +a, or zero where pruning masks them."""
        for name, weight in weights.items() if self.strength == 1 else ():
            magnitudes = self.granularity.rows(self.targets[name].outputs_first(weight)).abs()
            smallest = magnitudes.masked_fill(magnitudes == 0, torch.inf).amin(1)
            wrong = int(torch.count_nonzero(magnitudes.amax(1) > smallest))
            if wrong:
                raise RuntimeError(
                    f"need the two values -a and +a in every channel of {name!r}, got more in {wrong} of "
                    f"{len(magnitudes)} channels"
                )
        super().verify(weights)

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        for name, gradient in gradients.items():
            gradient.masked_fill_(latents[name].abs() > 1, 0)
