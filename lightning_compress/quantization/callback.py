"""Quantization and binarization during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_compress.quantization import scales
from lightning_compress.quantization.grids import Granularity, Grid, PerChannel
from lightning_compress.quantization.records import QUANTIZATION, detach
from lightning_compress.quantization.scales import Scale
from lightning_compress.quantization.weights import WeightGrids
from lightning_compress.schedules import Schedule, Step
from lightning_compress.training.structures import carry

__all__ = ["BinarizationCallback", "QATCallback"]


class _Quantization(WeightGrids):
    """Every checkpoint carries the grids."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        carry(pl_module, QUANTIZATION)
        if stage == "fit":
            detach(pl_module)


class QATCallback(_Quantization):
    """Train a model whose weights are on an integer grid: quantization-aware training.

    From the schedule's begin on the model in the Trainer holds quantized weights at every validation and in every
    checkpoint; the optimizer goes on with the full-precision weights behind them (straight-through estimator).

    Args:
        weight_bits: 2 to 8; 2 bits on a symmetric grid are ternary weights. On x86 CPUs without VNNI instructions
            choose 7: their int8 kernels saturate with 8.
        granularity: which weights share a scale; see :mod:`~lightning_compress.quantization.grids`.
        scale: which grid fits the weights; see :mod:`~lightning_compress.quantization.scales`.
        schedule: progress of the run -> strength; where it is between 0 and 1, weights are drawn towards the grid.
        every_n_steps: optimizer steps between two fits of the grids.
        include: patterns of parameters to quantize; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of parameters to leave alone.

    Raises:
        ValueError: an argument is out of its range; in ``fit``, a weight does not fit the granularity, or two callbacks
            quantize one weight.
        TypeError: ``include`` or ``exclude`` is one string.

    Papers: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
    Inference", https://arxiv.org/abs/1712.05877 (2018); Bai et al., "ProxQuant: Quantized Neural Networks via Proximal
    Operators", https://arxiv.org/abs/1810.00861 (2018).

    >>> QATCallback(weight_bits=1.5)
    Traceback (most recent call last):
    ValueError: need an integer 2 <= weight_bits <= 8, got weight_bits=1.5
    """

    def __init__(
        self,
        weight_bits: int = 8,
        activation_bits: int | None = 8,
        granularity: Granularity = PerChannel(),
        scale: Scale = scales.absmax,
        schedule: Schedule = Step(at=0.2),
        every_n_steps: int = 10,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        super().__init__(granularity, schedule, every_n_steps, include, exclude)
        self.weight_bits = _bits("weight_bits", weight_bits, 2)
        self.scale = scale

    def describe(self) -> str:
        scale = getattr(self.scale, "__name__", repr(self.scale))
        return f"{self.weight_bits}-bit weights, {self.granularity}, scales by {scale}, {self.schedule}"

    def fit_grid(self, rows: Tensor) -> Grid:
        return self.scale(rows, self.weight_bits)


class BinarizationCallback(_Quantization):
    """Train a model whose weights are binary: ``{-a, +a}`` with one scale ``a = mean |w|`` per output channel.

    The gradient goes straight through the sign where ``|latent| <= 1`` and is zero beyond. An exact zero stays zero,
    so that pruning under it holds.

    Args:
        schedule: progress of the run -> strength; where it is between 0 and 1, weights are drawn towards the signs.
        every_n_steps: optimizer steps between two fits of the scales.
        include: patterns of parameters to binarize; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of parameters to leave alone.

    Raises:
        ValueError: an argument is out of its range; in ``fit``, two callbacks quantize one weight.
        TypeError: ``include`` or ``exclude`` is one string.

    Papers: Courbariaux et al., "BinaryConnect: Training Deep Neural Networks with binary weights during propagations",
    https://arxiv.org/abs/1511.00363 (2015); Rastegari et al., "XNOR-Net: ImageNet Classification Using Binary
    Convolutional Neural Networks", https://arxiv.org/abs/1603.05279 (2016).

    >>> BinarizationCallback(every_n_steps=0)
    Traceback (most recent call last):
    ValueError: need every_n_steps >= 1, got every_n_steps=0
    """

    def __init__(
        self,
        schedule: Schedule = Step(at=0.2),
        every_n_steps: int = 10,
        include: Sequence[str] = ("*",),
        exclude: Sequence[str] = (),
    ) -> None:
        super().__init__(PerChannel(), schedule, every_n_steps, include, exclude)

    def describe(self) -> str:
        return f"binary weights, one scale per output channel, {self.schedule}"

    def fit_grid(self, rows: Tensor) -> Grid:
        return scales.mean(rows)

    def nearest(self, grid: Grid, weight: Tensor) -> Tensor:
        return grid.values(weight.sign())

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        for name, gradient in gradients.items():
            gradient.masked_fill_(latents[name].abs() > 1, 0)


def _bits(argument: str, bits: int, fewest: int) -> int:
    if not isinstance(bits, int) or isinstance(bits, bool) or not fewest <= bits <= 8:
        raise ValueError(f"need an integer {fewest} <= {argument} <= 8, got {argument}={bits}")
    return bits
