"""Projections of a module by callbacks at full strength, without a Trainer and without training.

The callbacks of the caller are never touched: copies of them begin, on a copy of the module.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from lightning_compress.evidence import Evidence, evidence_of
from lightning_compress.latent import LatentWeights
from lightning_compress.targets import Selection
from lightning_compress.training import WeightCompression
from lightning_compress.training.callback import with_brought

__all__ = ["evidence_read", "fresh", "methods_in", "project_", "show_evidence"]


def methods_in(callbacks: Sequence[object]) -> list[WeightCompression]:
    """Fresh copies of the weight callbacks in a list of callbacks, with those that they bring."""
    return [fresh(callback) for callback in with_brought(callbacks) if isinstance(callback, WeightCompression)]


def fresh(method: WeightCompression) -> WeightCompression:
    """A copy of a callback, in the state before ``fit``."""
    copied = copy.copy(method)
    copied.joined = ()
    copied.begin(Selection((), {}))
    return copied


def evidence_read(method: WeightCompression) -> Evidence:
    """The evidence that the criterion of a method reads; nothing if it has no criterion."""
    criterion = getattr(method, "criterion", None)
    return "nothing" if criterion is None else evidence_of(criterion)


def show_evidence(method: WeightCompression, gradients: Mapping[str, Tensor], run: Callable[[], object]) -> None:
    """Let a method, which has begun, observe the evidence that its criterion reads.

    Args:
        method: the method, at strength 0.
        gradients: name -> gradient at the weight.
        run: a forward pass of the module, for criteria that read the inputs of layers.
    """
    evidence = evidence_read(method)
    if evidence == "nothing":
        return
    layers = {target.module: target.module.training for target in method.targets.values()}
    if evidence == "inputs":
        for layer in layers:
            layer.training = True  # inputs are measured in training; linear layers and convolutions compute the same
        try:
            with torch.enable_grad():
                run()
        finally:
            for layer, training in layers.items():
                layer.training = training
    latents = {name: target.parameter.detach() for name, target in method.targets.items()}
    method.observe(latents, {name: gradients[name] for name in latents if name in gradients})
    method.stepped()


def project_(methods: Sequence[WeightCompression]) -> list[WeightCompression]:
    """Overwrite the targets of methods, which have begun, by their projections at full strength.

    Returns:
        the methods that cannot project, since their criterion has seen no evidence.

    >>> from lightning_compress import PruningCallback
    >>> from lightning_compress.training.plans import begin_on
    >>> layer, pruning = torch.nn.Linear(2, 1), fresh(PruningCallback(0.5))
    >>> layer.weight.data = torch.tensor([[3.0, 1.0]])
    >>> _ = begin_on(pruning, layer)
    >>> project_([pruning]), layer.weight.tolist()
    ([], [[3.0, 0.0]])
    """
    ordered = sorted(methods, key=lambda method: method.order)
    targets = {name: target for method in ordered for name, target in method.targets.items()}
    for method in ordered:
        method.strength = 1.0
    latents = LatentWeights({name: target.parameter for name, target in targets.items()}, ordered)
    latents.offsets = {name: target.path for name, target in targets.items() if target.path is not None}
    latents.update(ordered)
    latents.drop()
    return [method for method in ordered if method.strength < 1.0]
