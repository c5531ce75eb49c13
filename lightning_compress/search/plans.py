"""Plans: the effect of callbacks on a module, predicted before any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from lightning_compress.channels import ChannelPruningCallback
from lightning_compress.example_inputs import (
    ExampleInput,
    check_example_input,
    check_runs,
    device_of,
    on_device,
    unwrapped,
)
from lightning_compress.messages import wrapped
from lightning_compress.report.measures.profiles import LayerProfile, ModelProfile, profile, shipped_macs
from lightning_compress.report.views.layers import Table
from lightning_compress.report.views.notebooks import frame, table_html
from lightning_compress.search.projecting.compressed import Begun, compress_, train_constants_
from lightning_compress.search.views.tables import as_text, brief
from lightning_compress.training.callback import with_brought
from lightning_compress.training.copies import detached_copy
from lightning_compress.training.plans import plan_text

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Plan", "PlannedLayer", "PlannedMethod", "plan"]


@dataclass(frozen=True)
class PlannedMethod:
    """One callback of a plan.

    Attributes:
        callback: the callback as its call is written, ``"PruningCallback(sparsity=0.9)"``.
        text: its printed plan, as ``fit`` prints it: the method, its targets, the parameters that it leaves alone.
        targets: names of the parameters that it compresses.
        left_alone: name -> reason, of those that it leaves alone; names of layers for channels.
        notes: sentences on the prediction.
    """

    callback: str
    text: str
    targets: tuple[str, ...]
    left_alone: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedLayer:
    """One parameter tensor of a plan.

    Attributes:
        name: in the state dict.
        methods: numbers of the methods that compress it, from 1, in the order of the callbacks.
        reason: why no method compresses it; empty if one does.
        before: its profile now; None if it is new, as the factors of a layer that is split.
        after: its predicted profile; None if it is gone.
        macs: multiply-accumulates of its layer before and after; None if they were not counted.
    """

    name: str
    methods: tuple[int, ...]
    reason: str
    before: LayerProfile | None
    after: LayerProfile | None
    macs: tuple[int, int] | None = None


@dataclass(frozen=True)
class Plan:
    """The effect of callbacks on a module, predicted by :func:`plan`; ``str(plan)`` is a table of 80 columns.

    Attributes:
        before: profile of the module, with constants as training will leave them.
        after: the predicted profile after ``fit``.
        methods: the weight callbacks, in the order of the list.
    """

    before: ModelProfile
    after: ModelProfile
    methods: tuple[PlannedMethod, ...]

    @property
    def layers(self) -> tuple[PlannedLayer, ...]:
        """Every parameter tensor, before and after."""
        before, after = ({layer.name: layer for layer in model.layers} for model in (self.before, self.after))
        return tuple(self._layer(name, before.get(name), after.get(name)) for name in before | after)

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers and text, for ``json.dumps``."""
        totals = {
            name: {
                "parameters": model.parameters,
                "nonzeros": model.nonzeros,
                "sparsity": model.sparsity,
                "state_bytes": model.state_bytes,
                "archive_bytes": model.archive_bytes,
                "macs": model.macs.total if model.macs else None,
            }
            for name, model in (("before", self.before), ("after", self.after))
        }
        return {
            "totals": totals,
            "methods": [asdict(method) for method in self.methods],
            "layers": [asdict(layer) for layer in self.layers],
        }

    def to_pandas(self) -> DataFrame:
        """One row for each parameter tensor.

        Raises:
            ImportError: pandas is not installed.
        """
        return frame(asdict(layer) for layer in self.layers)

    def __str__(self) -> str:
        touched = [layer for layer in self.layers if layer.methods or layer.before is None]
        parts = [self._headline()]
        parts += ["\n".join(wrapped(line) for line in told.splitlines()) for told in self._told()]
        if touched:
            parts.append(as_text(self._table(touched)))
        if not self.methods:
            parts.append("no callback compresses weights")
        return "\n\n".join(parts)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return table_html(self._table(self.layers), self._told())

    def _table(self, layers: Sequence[PlannedLayer]) -> Table:
        heads = ("parameter", "by", "zeros", "bits", "values", "bytes", "MACs")
        return Table(self._headline(), heads, (*map(_row, layers), self._total()))

    def _headline(self) -> str:
        before, after = self.before.archive_bytes, self.after.archive_bytes
        smaller = f", {before / after:.1f}x smaller" if after < before else ""
        counted = f"\nMACs of an input of {self.after.macs.inputs}" if self.after.macs else ""
        return f"Predicted archive (.lcz): {before:,} -> {after:,} bytes{smaller}{counted}"

    def _told(self) -> list[str]:
        return [
            "\n".join([f"{number} {method.text}", *(f"  {note}" for note in method.notes)])
            for number, method in enumerate(self.methods, 1)
        ]

    def _layer(self, name: str, before: LayerProfile | None, after: LayerProfile | None) -> PlannedLayer:
        numbers = tuple(number for number, method in enumerate(self.methods, 1) if name in method.targets)
        layer, counted = name.rpartition(".")[0], (self.before.macs, self.after.macs)
        macs = tuple(macs.layers.get(layer, 0) for macs in counted if macs)
        weight = name.endswith("weight") and any(macs)
        reason = "" if numbers or before is None else self._reason(name, layer)
        return PlannedLayer(name, numbers, reason, before, after, (macs[0], macs[-1]) if weight else None)

    def _reason(self, name: str, layer: str) -> str:
        found = dict.fromkeys(
            method.left_alone.get(name) or method.left_alone.get(layer) or "no channels of it are removed"
            for method in self.methods
        )
        return "; ".join(found) or "no callback compresses weights"

    def _total(self) -> tuple[str, ...]:
        before, after = self.before, self.after
        size = _arrow(brief(before.archive_bytes), brief(after.archive_bytes))
        macs = _arrow(*(brief(model.macs.total) if model.macs else "" for model in (before, after)))
        return "total, with buffers", "", f"{after.sparsity:.1%}", "", "", size, macs


def plan(module: nn.Module, callbacks: Sequence[object], example_input: ExampleInput | None = None) -> Plan:
    """Predict the effect of callbacks on a module before any training: which layers, zeros, bits, bytes, MACs.

    The callbacks select their targets as in ``fit``, and refuse the same models. The numbers after are those of a copy
    of the module whose present weights are projected once by copies of the callbacks at full strength; its layers are
    split and its channels removed where the callbacks do that. Zeros over all targets, bits and MACs are those that
    ``fit`` ends with. Zeros of a single layer under a global threshold, numbers of distinct values and bytes depend on
    the weights: the nearer the weights are to those after training, the nearer is the prediction. Tensors that hold one
    value until they are trained, such as those of a new BatchNorm, count as trained ones.

    Module, callbacks and random generators stay as they are: give the same callbacks to a Trainer.

    Args:
        module: any module, with whole parameters.
        callbacks: as for a Trainer; those that compress no weights are passed over.
        example_input: input of ``forward``: a tensor, a tuple of positional or a mapping of keyword arguments; by
            default that of a callback, or ``module.example_input_array``. Without one, MACs and the quantizers of
            activations are missing, and channels cannot be planned.

    Raises:
        TypeError: ``module`` is not a module, ``callbacks`` is no list, or a callback is a class.
        ValueError: the callbacks cannot compress the module, or ``forward`` does not take the example.

    >>> from lightning_compress import PruningCallback
    >>> planned = plan(nn.Linear(8, 4), [PruningCallback(0.75)], torch.zeros(1, 8))
    >>> [(layer.name, layer.methods, layer.reason) for layer in planned.layers]
    [('weight', (1,), ''), ('bias', (), 'bias or vector')]
    >>> planned.after.layers[0].nonzeros, planned.after.macs.total
    (8, 32)
    """
    if isinstance(callbacks, str) or not isinstance(callbacks, Sequence):
        given = f"{type(callbacks).__name__}(...)" if hasattr(callbacks, "state_key") else "PruningCallback(...)"
        raise TypeError(f"need callbacks as a list, got {type(callbacks).__name__}: write [{given}]")
    parameters = unwrapped(module).parameters()
    devices = {parameter.device.index or 0 for parameter in parameters if parameter.device.type == "cuda"}
    with torch.random.fork_rng(sorted(devices)):
        copied = detached_copy(module)
        example = _example(copied, callbacks, example_input)
        train_constants_(copied)
        before = _profiled(copied, example)
        begun = compress_(copied, callbacks, example)
        return Plan(before, _profiled(copied, example), tuple(map(_method, begun)))


def _example(module: nn.Module, callbacks: Sequence[object], given: ExampleInput | None) -> ExampleInput | None:
    """The example input, on the device of the module; None if there is none, and no callback needs it."""
    others = (getattr(one, "example_input", None) for one in with_brought(callbacks))
    found = [one for one in (given, *others, getattr(module, "example_input_array", None)) if one is not None]
    if not found:
        if any(isinstance(callback, ChannelPruningCallback) for callback in with_brought(callbacks)):
            raise ValueError(
                "need example_input to find the channels of the module, got none: pass a tensor as forward takes it"
            )
        return None
    check_example_input(found[0])
    example: ExampleInput = on_device(found[0], device_of(module))
    check_runs(module, example)
    return example


def _profiled(module: nn.Module, example: ExampleInput | None) -> ModelProfile:
    return replace(profile(module), macs=None if example is None else shipped_macs(module, example))


def _method(begun: Begun) -> PlannedMethod:
    selection = begun.selection
    return PlannedMethod(
        callback=repr(begun.method),
        text=plan_text(begun.method, selection),
        targets=tuple(target.name for target in selection),
        left_alone=dict(selection.skipped),
        notes=tuple(begun.notes),
    )


def _row(layer: PlannedLayer) -> tuple[str, ...]:
    before, after = layer.before, layer.after
    size = _arrow(*(brief(one.archive_bytes) if one else "0" for one in (before, after)))
    macs = _arrow(*map(brief, layer.macs)) if layer.macs else ""
    by = " ".join(map(str, layer.methods))
    if after is None:
        return layer.name, by, "gone", "", "", size, macs
    return layer.name, by, f"{after.sparsity:.1%}", str(after.bits), brief(after.distinct), size, macs


def _arrow(before: str, after: str) -> str:
    return before if before == after else f"{before} > {after}"
