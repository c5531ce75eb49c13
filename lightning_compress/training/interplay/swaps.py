"""Swaps: other code puts other weights into the model to validate and save them, such as an average of the run.

Schedule-free optimizers, averages of the user's own and ``WeightAveraging`` swap weights when a validation begins, and
swap them back when it ends. The model is therefore looked at after every hook that runs before the first batch, and
when a state dict is taken for a checkpoint: weights that are not compressed are projected there, and handed back
unprojected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_compress.latent import LatentWeights
from lightning_compress.processes import local
from lightning_compress.targets import Target

__all__ = ["Swaps"]


class Swaps:
    """The weights that are seen in validation and in checkpoints.

    Args:
        latents: the latents of the targets.

    Attributes:
        targets: name -> target, of all compressed weights.
    """

    def __init__(self, latents: LatentWeights) -> None:
        self.targets: Mapping[str, Target] = {}
        self._latents = latents
        self._shown = False
        self._given: dict[str, Tensor] = {}  # to be handed back

    @torch.no_grad()
    def show(self) -> None:
        """Let the parameters hold compressed weights, until :meth:`hide`; a collective."""
        if self._shown:
            return
        weights = {name: local(target.parameter.detach()) for name, target in self.targets.items()}
        for name, compressed in self._latents.compressed(weights).items():
            if not torch.equal(weights[name], compressed):
                self._given[name] = weights[name].clone()
                weights[name].copy_(compressed)
        self._shown = True

    @torch.no_grad()
    def hide(self) -> None:
        """Hand the weights back as they were given."""
        for name, weight in self._given.items():
            local(self.targets[name].parameter.detach()).copy_(weight)
        self._shown, self._given = False, {}

    def compressed(self, state_dict: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        """Wrap a function that takes the state dict of the model: the targets in it are compressed."""

        def compressed_state_dict() -> dict[str, Any]:
            if self._shown:  # within a validation
                return state_dict()
            self.show()
            try:
                state = state_dict()
                seen = {name for key in self._given for name in self.targets[key].aliases}
                return {name: value.clone() if name in seen else value for name, value in state.items()}
            finally:
                self.hide()

        return compressed_state_dict
