"""Masked weights: parameters that hold their own latents wherever no mask hides them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from lightning_compress.latent.projections import Projection

__all__ = ["MaskedWeights"]


class MaskedWeights:
    """Latents of the parameters that are masked in place: ``latent = where(mask, p, hidden)``.

    Args:
        projections: all projections.
    """

    def __init__(self, projections: Sequence[Projection]) -> None:
        self._projections = projections
        self.hidden: dict[str, Tensor] = {}
        """Name -> tensor of the weight's shape that holds the latents of masked entries; other entries are unused."""

    def covered(self) -> set[str]:
        """Names of the parameters that are projected, and all of whose projections mask in place."""
        masks, others = set[str](), set[str]()
        for projection in self._projections:
            (masks if projection.masks_in_place else others).update(projection.active)
        return masks - others

    def latents(self, weight: Callable[[str], Tensor]) -> dict[str, Tensor]:
        """Name -> latent of every parameter that is masked in place; ``weight`` gives the parameter of a name."""
        return {name: torch.where(self._kept(name), weight(name), hidden) for name, hidden in self.hidden.items()}

    def release(self, weight: Callable[[str], Tensor]) -> dict[str, Tensor]:
        """The latents, in the memory of the hidden ones, which are forgotten."""
        for name, hidden in self.hidden.items():
            torch.where(self._kept(name), weight(name), hidden, out=hidden)
        released, self.hidden = self.hidden, {}
        return released

    def _kept(self, name: str) -> Tensor:
        """True for each entry that no projection masks in place."""
        kept = torch.ones_like(self.hidden[name], dtype=torch.bool)
        for projection in self._projections:
            if name in projection.active and projection.masks_in_place and (mine := projection.kept(name)) is not None:
                kept &= mine
        return kept
