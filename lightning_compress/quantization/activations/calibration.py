"""Calibration: the activation quantizers of one ``fit``, which its first batch places and later batches adjust."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.adapters.views import plain_view
from lightning_compress.example_inputs import ExampleInput, call, evaluating
from lightning_compress.messages import listed
from lightning_compress.processes import largest, mean
from lightning_compress.quantization.activations.biases import round_bias_
from lightning_compress.quantization.activations.compilation import EAGER, RECOMPUTING
from lightning_compress.quantization.activations.quantizers import (
    ActivationQuantizer,
    Place,
    Quantizer,
    RowQuantizer,
    attach_quantizer,
    quantizers_of,
)
from lightning_compress.quantization.activations.ranges import RangeOptimizer, followed
from lightning_compress.quantization.dataflow.flow import Dataflow
from lightning_compress.quantization.dataflow.neighbors import norms_after, quantizers_before
from lightning_compress.quantization.dataflow.placement import place_quantizers
from lightning_compress.quantization.dataflow.traces import Trace
from lightning_compress.quantization.grids import AffineGrid
from lightning_compress.quantization.observers import Observer
from lightning_compress.quantization.profiles import Profile
from lightning_compress.quantization.weights import grids_of

__all__ = ["Calibration"]


class Calibration:
    """Places quantizers in ``module`` and updates their ranges.

    Args:
        module: the model.
        targets: names of the layers that shall compute in integers, as they are once adapters are merged.
        bits: of the activations.
        observer: the range of one batch.
        decay: of the running ranges.
        profile: of the runtime that the model is trained for.
        optimizer: trains the ranges once quantizers round; None to let them follow the observer all the time.

    Attributes:
        quantizers: by place.
        placed: whether the first batch is done.
        missed: targets whose input no quantizer reaches.
    """

    def __init__(
        self,
        module: nn.Module,
        targets: Collection[str],
        bits: int,
        observer: Observer,
        decay: float,
        profile: Profile,
        optimizer: RangeOptimizer | None = None,
    ) -> None:
        self.quantizers: dict[Place, Quantizer] = {}
        self.placed = False
        self.missed: tuple[str, ...] = ()
        self._module = module
        self._targets = tuple(targets)
        self._bits = bits
        self._observer = observer
        self._decay = decay
        self._profile = profile
        self._optimizer = optimizer
        self._learning = False
        self._windows: list[Tensor] | None = None  # at the begin of a batch that is observed
        self._sums: dict[str, tuple[Place, str | None]] = {}  # target -> quantizer before, normalization after
        self._trace: Trace | None = None
        self._training, self._watching = ExitStack(), ExitStack()

    def state_dict(self) -> dict[str, Any]:
        """Places and windows of the quantizers, neighbors of the targets, and the state of the optimizer."""
        return {
            "places": [[place.module, place.side] for place in self.quantizers],
            # A batch that an exception ends is taken again.
            "windows": self._present_windows() if self._windows is None else self._windows,
            "sums": [[name, place.module, place.side, norm] for name, (place, norm) in self._sums.items()],
            "optimizer": None if self._optimizer is None else self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with quantizers that a checkpoint has attached already."""
        attached = quantizers_of(self._module)
        self.quantizers = {place: attached[place] for place in (Place(*names) for names in state["places"])}
        self._sums = {name: (Place(module, side), norm) for name, module, side, norm in state["sums"]}
        self.placed = bool(self.quantizers)
        for quantizer, window in zip(self._ranged(), state["windows"], strict=True):
            quantizer.observer, quantizer.decay = self._observer, self._decay
            quantizer.window = window.to(quantizer.low).unbind()
        if self._optimizer is not None and state["optimizer"] is not None:
            self._optimizer.load_state_dict(state["optimizer"])

    def missed_text(self) -> str:
        """The targets that no quantizer reaches, and the causes that there may be."""
        outputs, functions = "", ""
        if self._profile.round_outputs:
            outputs, functions = (
                " or outputs",
                ", hand their outputs to a function, such as F.relu in place of nn.ReLU(),",
            )
        return (
            f"no quantizer reaches the inputs{outputs} of {listed(self.missed)}: these layers did not run in the first "
            f"batch, were not called as modules{functions or ','} or compute with another tensor than their weight in "
            "F.linear or a convolution; they compute with quantized weights in float"
        )

    def open(self, state: dict[str, Any] | None = None) -> None:
        """Training begins, or continues from the state of a checkpoint."""
        if state is not None:
            self.load_state_dict(state)
        if all(parameter.device.type == "cpu" for parameter in self._module.parameters()):
            self._training.enter_context(RECOMPUTING)

    def watch(self) -> None:
        """Trace a first forward pass, until :meth:`place`; compiled modules run eagerly meanwhile."""
        self._watching.enter_context(EAGER)
        self._trace = self._watching.enter_context(Trace(self._module, self._range))

    def place(self) -> None:
        """The forward pass is over: place the quantizers, with the ranges that it had."""
        trace, self._trace = self._trace, None
        self._watching.close()
        if trace is None:
            return
        flow = Dataflow(trace)
        placement = place_quantizers(flow, self._targets, self._profile)
        taken = quantizers_of(self._module)  # by another callback
        free = {place: values for place, values in placement.places.items() if place not in taken}
        if self._profile.dynamic_activations:
            self.quantizers = {place: RowQuantizer(self._bits) for place in free}
        else:
            self.quantizers = dict(zip(free, self._with_ranges(free.values(), trace), strict=True))
        for place, quantizer in self.quantizers.items():
            attach_quantizer(self._module, place, quantizer)
        norms = norms_after(trace.module, flow)
        before = quantizers_before(trace.module, flow, quantizers_of(self._module))
        self._sums = {name: (before[name], norms.get(name)) for name in self._targets if name in before}
        self.placed, self.missed = True, placement.missed
        if any(submodule._compiled_call_impl is not None for submodule in self._module.modules()):
            torch.compiler.reset()  # code without them would count towards the limit of compiled versions

    def place_on(self, example: ExampleInput) -> None:
        """Place the quantizers by a forward pass of a copy that nobody trains; they round from then on.

        A range without width, as of an input of zeros, becomes [0, 1]: integer biases need a unit.

        Args:
            example: input of ``forward``, on the device of the module.
        """
        try:
            self.open()
            with evaluating(self._module), torch.enable_grad():  # a trace sees operations that gradients flow through
                self.watch()
                call(self._module, example)
                self.place()
        finally:
            self.close()
        self.switch(enabled=True, observing=False)
        for quantizer in self._ranged():
            if not quantizer.high > quantizer.low:
                quantizer.rescale(torch.zeros_like(quantizer.low), torch.ones_like(quantizer.high))

    def close(self) -> None:
        """Training is over, or was interrupted."""
        self._watching.close()
        self._training.close()
        self._trace = None

    def switch(self, *, enabled: bool, observing: bool) -> None:
        """Set whether the quantizers round, and whether they update their ranges."""
        self._learning = self._optimizer is not None and enabled and observing
        self._windows = self._present_windows() if observing else None
        for quantizer in self.quantizers.values():
            quantizer.enabled = enabled
        for quantizer in self._ranged():
            # A range without width, as after a batch normalization that begins at 0, has no gradient: observe it.
            quantizer.learn(self._learning and bool(quantizer.high > quantizer.low))
            # The lowest value of a positive range is observed until one is negative, and learned from then on.
            quantizer.observing = observing and not quantizer.low.requires_grad

    @torch.no_grad()
    def update(self, *, stepped: bool) -> None:
        """Update the ranges with the batches of all processes; a collective.

        Args:
            stepped: whether the optimizer has stepped; gradients of ranges add up until it does.
        """
        quantizers = self._ranged()
        if not quantizers or (self._learning and not stepped):
            return
        bounds = [(quantizer.low, quantizer.high) for quantizer in quantizers]
        ranges = torch.stack([torch.stack(pair) for pair in bounds])
        observed, windows = followed(
            ranges, _united(torch.stack([torch.stack(quantizer.window) for quantizer in quantizers])), self._decay
        )
        if self._learning and self._optimizer is not None:
            gradients = torch.stack([torch.stack([_gradient(bound) for bound in pair]) for pair in bounds])
            learned = torch.tensor([[bound.requires_grad for bound in pair] for pair in bounds], device=ranges.device)
            moved = self._optimizer.moved(ranges, mean([gradients])[0])
            observed = torch.where(learned, moved, observed)
        positive = (observed[:, 0] >= 0).tolist()
        for quantizer, (low, high), window, is_positive in zip(quantizers, observed, windows, positive, strict=True):
            # A learned bound of a symmetric range is followed by the other one.
            low, high = quantizer.bounds(-high if quantizer.high.requires_grad and quantizer.symmetric else low, high)
            quantizer.low.copy_(low)
            quantizer.high.copy_(high)
            quantizer.low.grad = quantizer.high.grad = None
            quantizer.positive &= is_positive
            quantizer.rescale()
            for state, value in zip(quantizer.window, window, strict=True):
                state.copy_(value)

    def round_biases(self, model: nn.Module) -> None:
        """Round the biases of the targets to the unit of their integer sums, by the present grids and ranges.

        Args:
            model: the module, or an average of it, with the same names.
        """
        if not self._profile.round_biases:
            return
        quantizers, grids, model = quantizers_of(self._module), grids_of(plain_view(self._module)), plain_view(model)
        for name, (place, norm) in self._sums.items():
            quantizer = quantizers[place]
            grid = grids.get(f"{name}.weight")  # None if the target is another parameter of the layer
            if isinstance(grid, AffineGrid) and isinstance(quantizer, ActivationQuantizer):
                after = None if norm is None else model.get_submodule(norm)
                round_bias_(model.get_submodule(name), grid, quantizer.scale, after)

    def _present_windows(self) -> list[Tensor]:
        return [torch.stack(quantizer.window) for quantizer in self._ranged()]

    def _ranged(self) -> list[ActivationQuantizer]:
        return [quantizer for quantizer in self.quantizers.values() if isinstance(quantizer, ActivationQuantizer)]

    def _with_ranges(self, places: Iterable[Collection[int]], trace: Trace) -> list[ActivationQuantizer]:
        """A quantizer for each place, with the range of its values; a collective."""
        noted = [torch.stack([torch.stack(trace.notes[value]) for value in values]) for values in places]
        unions = [torch.stack([bounds[:, 0].amin(), bounds[:, 1].amax()]) for bounds in noted]
        ranges = _united(torch.stack(unions)) if unions else ()
        symmetric = self._profile.symmetric_activations
        return [
            ActivationQuantizer(self._bits, low, high, self._observer, self._decay, symmetric=symmetric)
            for low, high in ranges
        ]

    def _range(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.numel() == 0:
            return x.new_zeros(()), x.new_zeros(())
        return self._observer(x.detach().float(), self._bits)


def _gradient(bound: Tensor) -> Tensor:
    return torch.zeros_like(bound) if bound.grad is None else bound.grad


def _united(ranges: Tensor) -> Tensor:
    """The union over all processes of ranges ``(R, 2)``, or of windows ``(R, 3)``; a collective."""
    signs = ranges.new_tensor([-1.0, 1.0, 1.0][: ranges.shape[1]])
    return largest(ranges * signs) * signs
