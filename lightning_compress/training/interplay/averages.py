"""Averages: the model of a WeightAveraging callback is validated and saved compressed.

The mean of compressed weights is not compressed: masks have changed, and a mean of grid points lies between them. The
average is therefore projected while it replaces the model, in validation and in checkpoints. The running average itself
is never projected.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_compress.adapters import additive_paths
from lightning_compress.latent import LatentWeights
from lightning_compress.lightnings import Callback, LightningModule, WeightAveraging, of_each
from lightning_compress.targets import Target

__all__ = ["Average", "averaging_first", "averaging_in"]

_AVERAGES = "averaged_weights"


def averaging_first(callbacks: Iterable[Callback]) -> list[Callback]:
    """The callbacks with WeightAveraging first, so that the average is projected after it was swapped in."""
    return sorted(callbacks, key=lambda callback: not isinstance(callback, WeightAveraging))


def averaging_in(callbacks: Iterable[object]) -> list[object]:
    """The callbacks that validate an average of the weights, or leave one."""
    kinds = of_each("callbacks.WeightAveraging") + of_each("callbacks.StochasticWeightAveraging")
    return [callback for callback in callbacks if isinstance(callback, kinds)]


class Average:
    """The averaged model of a Trainer, if it has one.

    Args:
        callbacks: the callbacks of the Trainer.
        module: the trained model.
        targets: name -> target, of all compressed weights.
        latents: the latents, which project the average.
    """

    def __init__(
        self,
        callbacks: Iterable[Callback],
        module: LightningModule,
        targets: Mapping[str, Target],
        latents: LatentWeights,
    ) -> None:
        self._averaging = next((callback for callback in callbacks if isinstance(callback, WeightAveraging)), None)
        self._module = module
        self._targets = targets
        self._latents = latents

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Project the average, which is the model of the checkpoint, and save the unprojected average beside it."""
        if self.model is not None:
            state = checkpoint["state_dict"]
            checkpoint[_AVERAGES] = {name: state[name] for name in self._targets}
            latents = {**checkpoint[_AVERAGES], **self.frozen()}
            projected = {name: latent.clone() for name, latent in latents.items()}
            self._latents.project(projected, {path.weight_name: path for path in additive_paths(self.model)})
            state.update({alias: projected[name] for name, target in self._targets.items() for alias in target.aliases})

    @torch.no_grad()
    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Load the unprojected average of a checkpoint into the averaged model."""
        if self.model is not None:
            for name, weight in checkpoint.get(_AVERAGES, {}).items():
                self.model.get_parameter(name).copy_(weight)

    @torch.no_grad()
    def settle(self) -> None:
        """Let the averaged model hold the latents that are frozen, before the others are dropped."""
        if (model := self.model) is not None:
            for name, latent in self.frozen().items():
                model.get_parameter(name).copy_(latent)

    def frozen(self) -> dict[str, Tensor]:
        """Latents of frozen weights with adapters: the mean of what these weights hold is of no use."""
        return self._latents.of_frozen()

    @property
    def model(self) -> torch.nn.Module | None:
        """The averaged model, if there is one; in validation it holds the trained weights."""
        model = None if self._averaging is None else self._averaging._average_model
        return None if model is None else model.module
