"""Swaps: other code puts other weights into the model to validate and save them, such as an average of the run.

Schedule-free optimizers, averages of the user's own and ``WeightAveraging`` swap weights when a validation begins, and
swap them back when it ends. The model is therefore looked at after every hook that runs before the first batch, and
when a state dict is taken for a checkpoint: weights that are not compressed are projected there, and handed back
unprojected.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lightning_compress.latent import LatentWeights
from lightning_compress.lightnings import Strategy
from lightning_compress.processes import local
from lightning_compress.targets import Target

__all__ = ["Swaps"]

_STATE_DICT = "lightning_module_state_dict"


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
        self._strategy: dict[str, Any] = {}

    def attach(self, strategy: Strategy) -> None:
        """Compress the targets in every state dict that the strategy takes of the model, until :meth:`release`."""
        self._strategy = vars(strategy)
        self._strategy[_STATE_DICT] = self.compressed(strategy.lightning_module_state_dict)

    def release(self) -> None:
        """Leave the strategy alone, and the weights as they are."""
        self._strategy.pop(_STATE_DICT, None)
        self._strategy, self._shown, self._given = {}, False, {}

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

    @contextmanager
    def handed_back(self) -> Iterator[None]:
        """Let the parameters hold what :meth:`show` replaced, in a ``with`` statement."""
        shown, given = self._shown, self._given
        held = {name: local(self.targets[name].parameter.detach()).clone() for name in given}
        self.hide()
        try:
            yield
        finally:
            for name, weight in held.items():
                local(self.targets[name].parameter.detach()).copy_(weight)
            self._shown, self._given = shown, given

    def compressed(self, state_dict: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
        """Wrap a function that takes the state dict of the model: the targets in it are compressed."""

        def compressed_state_dict() -> dict[str, Any]:
            in_validation = self._shown
            self.show()
            try:
                state = state_dict()
                seen = {name for key in self._given for name in self.targets[key].aliases}
                return {name: value.clone() if name in seen else value for name, value in state.items()}
            finally:
                if not in_validation:
                    self.hide()

        return compressed_state_dict
