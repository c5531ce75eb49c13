"""The compressed copy of a module: its weights as callbacks would make them, if they were projected now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightning_compress.carried import carry
from lightning_compress.channels import ChannelPruningCallback, remove_zero_channels
from lightning_compress.example_inputs import ExampleInput, call
from lightning_compress.low_rank import LowRankCallback
from lightning_compress.low_rank.splitting import split_layers_
from lightning_compress.messages import listed
from lightning_compress.quantization import QATCallback
from lightning_compress.quantization.records import QUANTIZATION
from lightning_compress.quantization.weights import WeightGrids
from lightning_compress.search.projecting.projections import evidence_read, methods_in, project_, show_evidence
from lightning_compress.targets import Selection
from lightning_compress.training import WeightCompression
from lightning_compress.training.plans import begin_on, check_callbacks, check_conflicts, check_orders

__all__ = ["Begun", "compress_", "train_constants_"]

_NORM_STATISTICS = ("running_mean", "running_var")


@dataclass
class Begun:
    """A method that has begun on a module.

    Attributes:
        method: a copy of the callback.
        selection: the targets that it found first, and the reasons to leave other parameters alone.
        notes: sentences on its part of the prediction.
    """

    method: WeightCompression
    selection: Selection
    notes: list[str] = field(default_factory=list)


def train_constants_(module: nn.Module) -> None:
    """Give tensors that hold one value until they are trained, such as those of a new BatchNorm, values that differ.

    An archive stores a constant in a few bytes; a trained tensor takes all of its own. The values are the constant plus
    0.1 times a normal number, the same in every call.
    """
    generator = torch.Generator().manual_seed(0)
    tensors: list[Tensor] = [parameter for parameter in module.parameters() if parameter.requires_grad]
    tensors += [buffer for name, buffer in module.named_buffers() if name.rpartition(".")[2] in _NORM_STATISTICS]
    with torch.no_grad():
        for tensor in tensors:
            if tensor.is_floating_point() and tensor.numel() > 1 and bool((tensor == tensor.flatten()[0]).all()):
                tensor.add_(0.1 * torch.randn(tensor.shape, generator=generator).to(tensor))


def compress_(module: nn.Module, callbacks: Sequence[object], example: ExampleInput | None) -> list[Begun]:
    """Compress a module in place, as the callbacks would if their schedules had ended: layers are split, channels gone.

    Args:
        module: a copy, in no Trainer.
        callbacks: those of a Trainer, in its order; they are not touched.
        example: input of ``forward``, on the device of the module; None if there is none.

    Returns:
        the methods, in the order of the callbacks.

    Raises:
        ValueError: the callbacks cannot compress the module, or cannot work together.
    """
    check_callbacks(callbacks)
    methods = methods_in(callbacks)
    check_orders(methods)
    for method in methods:
        method.company = methods
    begun = [Begun(method, begin_on(method, module, example)) for method in methods]
    check_conflicts(methods)
    changing = sorted((one for one in begun if _changes_shapes(one.method)), key=lambda one: one.method.order)
    for number, one in enumerate(changing):
        if number:
            begin_on(one.method, module, example)
        _project_(module, [one], example)
        _change_shapes_(module, one, example)
    rest = [one for one in begun if one not in changing]
    if changing:
        for one in rest:
            begin_on(one.method, module, example)
    _project_(module, rest, example)
    if any(isinstance(one.method, WeightGrids) for one in rest) and hasattr(module, "on_save_checkpoint"):
        carry(module, QUANTIZATION)
    for one in rest:
        if isinstance(one.method, QATCallback) and one.method.activation_bits is not None:
            _place_quantizers_(module, one, one.method, example)
    return begun


def _changes_shapes(method: WeightCompression) -> bool:
    if isinstance(method, ChannelPruningCallback):
        return method.remove
    return isinstance(method, LowRankCallback) and method.split


def _project_(module: nn.Module, begun: Sequence[Begun], example: ExampleInput | None) -> None:
    """Project by methods whose criteria may read evidence, which there is none of before training."""
    for one in begun:
        if evidence_read(one.method) == "gradient":
            one.notes.append(
                "its criterion reads gradients, which training will give: the entries shown are predicted as if every "
                "gradient were the negative weight"
            )
        # The gradient that pulls every weight away from zero, by its size: criteria then score by magnitude.
        gradients = {name: -target.parameter.detach() for name, target in one.method.targets.items()}
        show_evidence(one.method, gradients, partial(_run, module, example))
        one.notes += [note for note in [one.method.predict()] if note]
    waiting = project_([one.method for one in begun])
    for one in begun:
        if one.method in waiting:
            one.notes.append("its criterion reads inputs of layers: pass example_input to predict its part")


def _run(module: nn.Module, example: ExampleInput | None) -> None:
    if example is not None:
        call(module, example)


def _change_shapes_(module: nn.Module, one: Begun, example: ExampleInput | None) -> None:
    method = one.method
    if isinstance(method, LowRankCallback):
        ranks = {method.targets[name].module_name: rank for name, rank in method.ranks.items()}
        split_layers_(module, ranks)
        one.notes.append(f"ranks: {listed(f'{name} {rank}' for name, rank in ranks.items()) or 'none'}")
    else:
        removed = remove_zero_channels(module, example)
        one.notes.append(f"{removed} channels are removed")


def _place_quantizers_(module: nn.Module, one: Begun, method: QATCallback, example: ExampleInput | None) -> None:
    """Attach the quantizers of activations, which the archive carries, and note the layers that none reaches."""
    if example is None:
        one.notes.append("pass example_input to place the quantizers of activations")
        return
    method.start(cast(Any, module))
    calibration = method.calibration
    if calibration is None:
        return
    calibration.place_on(example)
    one.notes.append(f"{len(calibration.quantizers)} quantizers of activations for {method.profile}")
    if calibration.missed:
        one.notes.append(f"computed in float, since no quantizer reaches them: {listed(calibration.missed)}")
