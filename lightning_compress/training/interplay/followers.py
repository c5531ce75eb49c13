"""Followers: targets that no optimizer steps and that code of the user writes, such as momentum and target networks.

A running mean of projected weights would stand still on a grid. Once a follower has been written, it therefore holds
its latent, and is projected where it is validated and saved, and at the end of ``fit``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from lightning_compress.latent import LatentWeights
from lightning_compress.processes import local, on_any_process

__all__ = ["Followers"]


class Followers:
    """Finds the followers among the targets.

    Args:
        latents: the latents of the targets.
    """

    def __init__(self, latents: LatentWeights) -> None:
        self._parameters: Mapping[str, Tensor] = {}
        self._latents = latents
        self._stepped: set[str] = set()
        self._noted: dict[str, Tensor] = {}  # values of the others, as this package left them

    def attend(self, parameters: Mapping[str, Tensor]) -> None:
        """Find followers among these targets, name -> parameter; they may have replaced others."""
        self._parameters = parameters
        self._noted = {}

    def step(self, names: Collection[str]) -> None:
        """Note that an optimizer steps the named parameters: they are no followers."""
        self._stepped.update(names)
        for name in names:
            self._noted.pop(name, None)

    @torch.no_grad()
    def look(self) -> None:
        """Open the parameters that other code has written since :meth:`note`; a collective."""
        if not (others := self._others()):
            return
        unknown = others.keys() - self._noted.keys()
        written = unknown.intersection(self._latents.overwritten()) if unknown else set()
        flags = {name: (others[name] != noted).any() for name, noted in self._noted.items()}
        changed = on_any_process(list(flags.values()))
        written.update(name for name, differs in zip(flags, changed, strict=True) if differs)
        self._latents.open(written)
        for name in written:
            self._noted.pop(name, None)

    @torch.no_grad()
    def note(self) -> None:
        """Note the present values, after this package has written into parameters."""
        self._noted = {name: weight.clone() for name, weight in self._others().items()}

    def release(self) -> None:
        """Forget the noted values."""
        self._noted = {}

    def _others(self) -> dict[str, Tensor]:
        """The targets that no optimizer has stepped and that are not open; none before the first step."""
        known = self._stepped | self._latents.opened
        return {name: local(p.detach()) for name, p in self._parameters.items() if self._stepped and name not in known}
