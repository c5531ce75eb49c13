"""Activation quantizers: hooks on modules, which the state dict does not show."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from lightning_compress.quantization.activations.compilation import guard_hooks
from lightning_compress.quantization.activations.ranges import followed
from lightning_compress.quantization.activations.rounding import RoundStraightThrough, RoundWithRange, row_scales
from lightning_compress.quantization.observers import Observer, minmax

__all__ = [
    "ActivationQuantizer",
    "Place",
    "Quantizer",
    "RowQuantizer",
    "attach_quantizer",
    "detach_quantizers",
    "quantizers_of",
]

Side: TypeAlias = Literal["input", "output"]


@dataclass(frozen=True)
class Place:
    """The place of a quantizer.

    Attributes:
        module: name of the module.
        side: its first input or its output.
    """

    module: str
    side: Side


class Quantizer(ABC):
    """Rounds a tensor where it is attached.

    Attributes:
        bits: 4 to 8.
        symmetric: whether the code of zero is 0 in signed integers.
        enabled: whether it rounds at all.
    """

    def __init__(self, bits: int, *, symmetric: bool) -> None:
        self.bits = bits
        self.symmetric = symmetric
        self.enabled = True

    @abstractmethod
    def quantize(self, x: Tensor) -> Tensor:
        """``x`` rounded to the grid, in its dtype."""

    def on_input(self, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The forward pre-hook."""
        return (self._passed(args[0]), *args[1:])

    def on_output(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        """The forward hook."""
        return self._passed(output)

    def _passed(self, x: Tensor) -> Tensor:
        return self.quantize(x) if self.enabled else x


class RowQuantizer(Quantizer):
    """Rounds each row, along the last dimension, to a symmetric grid of its own.

    Values become ``q * scale`` with the scale ``max |x| / (2^(bits - 1) - 1)`` of the row; see :func:`row_scales`.
    Nothing is observed or stored: a row is rounded alike whatever the rows beside it are, in training and afterwards.
    The gradient passes straight through.

    >>> RowQuantizer(4).quantize(torch.tensor([[0.6, -7.0], [0.06, 0.7]]))
    tensor([[ 1.0000, -7.0000],
            [ 0.1000,  0.7000]])
    """

    def __init__(self, bits: int) -> None:
        super().__init__(bits, symmetric=True)

    def quantize(self, x: Tensor) -> Tensor:
        most = 2 ** (self.bits - 1) - 1
        rounded: Tensor = RoundStraightThrough.apply(x, row_scales(x, self.bits), None, (-most, most))  # type: ignore[no-untyped-call]
        return rounded


class ActivationQuantizer(Quantizer):
    """Rounds a tensor to ``2^bits`` evenly spaced values, ``(q - zero_point) * scale`` with ``q`` in [0, 2^bits - 1].

    It computes in float32 under any precision of the Trainer, passes the gradient straight through, and stores nothing
    for the backward pass. A range that starts at 0, as after a ReLU, has the zero point 0 exactly. A symmetric range
    has the zero point ``2^(bits - 1)``, which is 0 in signed integers.

    Args:
        bits: 4 to 8.
        low: lowest value to represent, a scalar tensor; 0 if it is above 0.
        high: highest value to represent, a scalar tensor; 0 if it is below 0.
        observer: the range of one tensor; see :mod:`~lightning_compress.quantization.observers`.
        decay: of the running range; see :func:`~.ranges.followed`.
        symmetric: whether the range reaches as far below zero as above, ``low = -high``.

    Attributes:
        observing: whether it observes what it rounds.
        window: lowest and highest value that it has observed since its owner moved the range, 0 among them, and their
            number: three scalars, see :func:`~.ranges.followed`.
        positive: whether the range starts at 0, since nothing below was observed.
        scale: step between two values, a float32 scalar.
        zero_point: code of the value zero, an integer in a float32 scalar.

    >>> quantizer = ActivationQuantizer(4, torch.tensor(0.0), torch.tensor(7.5))
    >>> quantizer.quantize(torch.tensor([0.2, 0.3, 99.0])).tolist()
    [0.0, 0.5, 7.5]
    """

    def __init__(
        self,
        bits: int,
        low: Tensor,
        high: Tensor,
        observer: Observer = minmax,
        decay: float = 0.9,
        *,
        symmetric: bool = False,
    ) -> None:
        super().__init__(bits, symmetric=symmetric)
        self.observer = observer
        self.decay = decay
        self.observing = False
        self.positive = bool(0 <= low < high) and not symmetric  # saves two passes over memory in each forward pass
        self.low, self.high = self.bounds(low.detach().float().clamp(max=0), high.detach().float().clamp(min=0))
        self.window = tuple(torch.zeros_like(self.low) for _ in range(3))
        self.scale, self.zero_point = torch.ones_like(self.low), torch.zeros_like(self.low)
        self.rescale()

    @property
    def levels(self) -> int:
        """The largest code."""
        return int(2**self.bits - 1)

    def bounds(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """The range that holds ``low`` and ``high``: of a symmetric quantizer it is as wide below zero as above."""
        if not self.symmetric:
            return low, high
        high = torch.maximum(-low, high)
        return -high, high

    def quantize(self, x: Tensor) -> Tensor:
        half = 2 ** (self.bits - 1)
        codes = (-half, half - 1) if self.symmetric else (0, self.levels)  # signed codes need no zero point
        grid = self.scale, None if self.positive or self.symmetric else self.zero_point, codes
        rounded: Tensor
        if self.high.requires_grad:
            low = self.high * (codes[0] / codes[1]) if self.symmetric else self.low
            rounded = RoundWithRange.apply(x, low, self.high, *grid)  # type: ignore[no-untyped-call]
        else:
            rounded = RoundStraightThrough.apply(x, *grid)  # type: ignore[no-untyped-call]
        return rounded

    def learn(self, learning: bool) -> None:
        """Set whether backward passes add the gradient of the range to ``low.grad`` and ``high.grad``."""
        self.low.requires_grad_(learning and not self.positive and not self.symmetric)
        self.high.requires_grad_(learning)

    @torch.no_grad()
    def observe(self, x: Tensor) -> None:
        """Widen the window by the range of ``x``, and round with the range that follows it.

        The range itself moves when the batch is over: other processes and other uses of the layer observe too.
        """
        if x.numel():
            low, high = self.observer(x.detach().float(), self.bits)
            lowest, highest, values = self.window
            lowest.copy_(torch.minimum(lowest, low))
            highest.copy_(torch.maximum(highest, high))
            values.add_(x.numel())
            if not self.high.requires_grad:
                ranges, _ = followed(
                    torch.stack([self.low, self.high])[None], torch.stack(self.window)[None], self.decay
                )
                self.rescale(*ranges[0])

    @torch.no_grad()
    def rescale(self, low: Tensor | None = None, high: Tensor | None = None) -> None:
        """Compute scale and zero point from a range, by default its own."""
        low, high = self.bounds((self.low if low is None else low).clamp(max=0), self.high if high is None else high)
        half, eps = 2 ** (self.bits - 1), torch.finfo(torch.float32).eps
        if self.symmetric:
            self.scale.copy_((high / (half - 1)).clamp_(min=eps))
            self.zero_point.fill_(half)
            return
        scale = ((high.clamp(min=0) - low) / self.levels).clamp_(min=eps)
        self.scale.copy_(scale)
        self.zero_point.copy_((-low / scale).round_().clamp_(0, self.levels))

    def to(self, device: torch.device) -> None:
        """Move the state to ``device``."""
        for name in ("low", "high", "scale", "zero_point"):
            state = getattr(self, name)
            setattr(self, name, state.detach().to(device).requires_grad_(state.requires_grad))
        self.window = tuple(state.to(device) for state in self.window)

    def _passed(self, x: Tensor) -> Tensor:
        if x.device != self.scale.device:
            self.to(x.device)
        if self.observing:
            self.observe(x)
        return super()._passed(x)


def quantizers_of(module: nn.Module) -> dict[Place, Quantizer]:
    """Place -> quantizer, for all quantizers on the modules in ``module``."""
    return {place: quantizer for place, quantizer, _, _ in _hooks(module)}


def attach_quantizer(module: nn.Module, place: Place, quantizer: Quantizer) -> None:
    """Attach ``quantizer`` at ``place`` in ``module``."""
    guard_hooks()
    path = place.module.split(".")
    for depth in range(len(path)):
        part = module.get_submodule(".".join(path[:depth]))
        if isinstance(part, nn.TransformerEncoder):
            # It would skip padding by nested tensors, which no quantizer rounds and no exported file has.
            part.use_nested_tensor = False
    holder = module.get_submodule(place.module)
    if place.side == "input":
        holder.register_forward_pre_hook(quantizer.on_input)
    else:
        holder.register_forward_hook(quantizer.on_output)


def detach_quantizers(module: nn.Module) -> None:
    """Detach all quantizers from the modules in ``module``."""
    for _, _, hooks, key in list(_hooks(module)):
        del hooks[key]


def _hooks(module: nn.Module) -> Iterator[tuple[Place, Quantizer, dict[int, Any], int]]:
    sides: tuple[tuple[Side, str], ...] = (("input", "_forward_pre_hooks"), ("output", "_forward_hooks"))
    for name, holder in module.named_modules():
        for side, attribute in sides:
            hooks = getattr(holder, attribute)
            for key, hook in hooks.items():
                owner = getattr(hook, "__self__", None)
                if isinstance(owner, Quantizer):
                    yield Place(name, side), owner, hooks, key
