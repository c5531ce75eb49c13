"""Snapshots: the state of a run in memory, to go back to."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, TypedDict

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lightning_compress.latent.weights import LatentWeights

__all__ = ["Snapshot", "restore_", "take"]


class Snapshot(TypedDict):
    """A copy of a model in training; plain values and tensors, as a checkpoint may hold them.

    Attributes:
        module: its state dict.
        latents: name -> latent.
        optimizers: the state of each optimizer, such as momentum; no learning rates, which follow the schedulers.
    """

    module: dict[str, Tensor]
    latents: dict[str, Tensor]
    optimizers: list[dict[Any, Any]]


@torch.no_grad()
def take(module: nn.Module, latents: LatentWeights, optimizers: Sequence[Optimizer]) -> Snapshot:
    """Copy a model, its latents and the state of its optimizers."""
    return {
        "module": {name: tensor.clone() for name, tensor in module.state_dict().items()},
        "latents": {name: latent.clone() for name, latent in latents.save().items()},
        "optimizers": [copy.deepcopy(optimizer.state_dict()["state"]) for optimizer in optimizers],
    }


@torch.no_grad()
def restore_(snapshot: Snapshot, module: nn.Module, latents: LatentWeights, optimizers: Sequence[Optimizer]) -> None:
    """Write a snapshot back, in place; it stays as it is, whatever happens to the model next."""
    latents.drop()
    module.load_state_dict(snapshot["module"])
    latents.load(snapshot["latents"])
    for optimizer, state in zip(optimizers, snapshot["optimizers"], strict=True):
        # An optimizer takes the tensors that it is given, and writes into them in its next steps.
        optimizer.load_state_dict({**optimizer.state_dict(), "state": copy.deepcopy(state)})
