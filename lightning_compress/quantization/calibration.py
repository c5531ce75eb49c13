"""Calibration: the activation quantizers of one ``fit``, placed by its first batch and ranged by those after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import torch
import torch.distributed as dist
from torch import Tensor, nn

from lightning_compress.quantization.activations import (
    ActivationQuantizer,
    Place,
    attach_quantizer,
    quantizers_of,
)
from lightning_compress.quantization.observers import Observer
from lightning_compress.quantization.placement import place_quantizers, reused_modules
from lightning_compress.quantization.traces import Trace

__all__ = ["Calibration"]


class Calibration:
    """Places quantizers in ``module`` and holds their ranges.

    Args:
        module: the model.
        targets: module name -> weight of the layers that shall compute in integers.
        bits: of the activations.
        observer: the range of one batch.

    Attributes:
        quantizers: by place.
        placed: whether the first batch is done.
        missed: targets whose inputs no quantizer reaches.
    """

    def __init__(self, module: nn.Module, targets: Mapping[str, Tensor], bits: int, observer: Observer) -> None:
        self.quantizers: dict[Place, ActivationQuantizer] = {}
        self.placed = False
        self.missed: tuple[str, ...] = ()
        self._module = module
        self._targets = dict(targets)
        self._bits = bits
        self._observer = observer
        self._trace: Trace | None = None
        self._entered = ExitStack()

    def take_up(self, places: Sequence[Place]) -> None:
        """Go on with quantizers that a checkpoint has attached already."""
        there = quantizers_of(self._module)
        self.quantizers = {place: there[place] for place in places}
        self.placed = bool(places)
        for quantizer in self.quantizers.values():
            quantizer.observer = self._observer

    def watch(self) -> None:
        """Watch a first forward pass, up to :meth:`place`; what is compiled runs eagerly meanwhile."""
        self._entered.enter_context(torch.compiler.set_stance("force_eager"))
        self._trace = self._entered.enter_context(Trace(self._module, self._range))

    def place(self) -> None:
        """The forward pass is over: place the quantizers, with the ranges that it showed.

        Raises:
            ValueError: a target was used more than once in one forward pass.
        """
        trace = self._trace
        self.close()
        if trace is None:
            return
        reused = sorted(reused_modules(trace) & self._targets.keys())
        if reused:
            raise ValueError(
                f"need layers that are used once in a forward pass to quantize activations, got {', '.join(reused)} "
                "used more often: add them to exclude, or set activation_bits=None"
            )
        placement = place_quantizers(trace, self._targets)
        taken = quantizers_of(self._module)  # by another callback
        free = {place: trace.notes[value] for place, value in placement.places.items() if place not in taken}
        ranges = _mean_over_processes([torch.stack(bounds) for bounds in free.values()])
        for place, (low, high) in zip(free, ranges, strict=True):
            self.quantizers[place] = ActivationQuantizer(self._bits, low, high, self._observer)
            attach_quantizer(self._module, place, self.quantizers[place])
        self.placed, self.missed = True, placement.missed
        if any(submodule._compiled_call_impl is not None for submodule in self._module.modules()):
            torch.compiler.reset()  # compiled code does not look for new hooks

    def close(self) -> None:
        """Stop watching."""
        self._entered.close()
        self._trace = None

    def switch(self, *, enabled: bool, observing: bool) -> None:
        """Say whether the quantizers round, and whether they renew their ranges."""
        for quantizer in self.quantizers.values():
            quantizer.enabled, quantizer.observing = enabled, observing

    def synchronize(self) -> None:
        """Give every process the mean of the ranges that the processes saw; a collective."""
        quantizers = list(self.quantizers.values())
        ranges = _mean_over_processes([torch.stack([q.low, q.high]) for q in quantizers])
        for quantizer, (low, high) in zip(quantizers, ranges, strict=True):
            quantizer.low.copy_(low)
            quantizer.high.copy_(high)
            quantizer.settle()

    def _range(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.numel() == 0:
            return x.new_zeros(()), x.new_zeros(())
        return self._observer(x.detach().float(), self._bits)


def _mean_over_processes(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    if not tensors or not dist.is_available() or not dist.is_initialized():
        return tensors
    flat = torch.stack(list(tensors))
    dist.all_reduce(flat)
    return list(flat / dist.get_world_size())
