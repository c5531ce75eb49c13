"""Averages: the model of a WeightAveraging callback is validated and saved compressed, as the trained model is.

The mean of compressed weights is not compressed: masks have changed, a mean of grid points lies between them. So while
the average stands in for the model, in validation and in checkpoints, it is projected; the average itself goes on as if
nothing had happened.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from lightning_compress.latent import LatentWeights
from lightning_compress.targets import Target

__all__ = ["Average", "averaging_first"]

_AVERAGES = "averaged_weights"


def averaging_first(callbacks: Iterable[Callback]) -> list[Callback]:
    """The callbacks with WeightAveraging in front, so that what it swaps in can be projected after it."""
    return sorted(callbacks, key=lambda callback: not isinstance(callback, WeightAveraging))


class Average:
    """The averaged model of a Trainer, if it has one.

    Args:
        callbacks: those of the Trainer.
        module: the model that is trained.
        targets: name -> target, of all weights that are compressed.
        latents: gives the projection.
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
        self._held: dict[str, Tensor] = {}

    @torch.no_grad()
    def show(self) -> None:
        """The model holds the average: project it there."""
        if self.model is not None:
            shown = {name: target.parameter.detach() for name, target in self._targets.items()}
            self._held = {name: weight.clone() for name, weight in shown.items()}
            self._latents.project(shown)

    @torch.no_grad()
    def hide(self) -> None:
        """The averaged model holds what was shown: give it the average back."""
        if self.model is not None:
            for name, weight in self._held.items():
                self.model.get_parameter(name).copy_(weight)
            self._held = {}

    def save(self, checkpoint: dict[str, Any]) -> None:
        """The checkpoint's model is the average: project it, and keep the average aside."""
        if self.model is not None:
            state = checkpoint["state_dict"]
            checkpoint[_AVERAGES] = {name: state[name] for name in self._targets}
            projected = {name: weight.clone() for name, weight in checkpoint[_AVERAGES].items()}
            self._latents.project(projected)
            state.update({alias: projected[name] for name, target in self._targets.items() for alias in target.aliases})

    @torch.no_grad()
    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """The averaged model holds the checkpoint's model: give it the average that was kept aside."""
        if self.model is not None:
            for name, weight in checkpoint.get(_AVERAGES, {}).items():
                self.model.get_parameter(name).copy_(weight)

    @property
    def model(self) -> torch.nn.Module | None:
        """The averaged model, if there is one; while the average is shown, it holds the trained weights."""
        model = None if self._averaging is None else self._averaging._average_model
        return None if model is None else model.module
