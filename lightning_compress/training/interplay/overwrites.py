"""Overwrites: other code that writes into compressed weights between two optimizer steps."""

from __future__ import annotations

from lightning_compress.latent import LatentWeights
from lightning_compress.lightnings import rank_zero_warn
from lightning_compress.messages import listed

__all__ = ["OverwriteWatch"]


class OverwriteWatch:
    """Warns once of other code that writes into compressed weights, since the next optimizer step undoes it.

    The weights are compared once an epoch at each of two places: before an optimizer step and after a batch.
    """

    def __init__(self) -> None:
        self._warned = False
        self._last = {"step": -1, "batch": -1}  # place -> epoch of the last comparison

    def look(self, place: str, epoch: int, latents: LatentWeights) -> None:
        """Compare the weights, if this epoch has not seen a comparison at this place."""
        if self._warned or self._last[place] == epoch or latents.restored or latents.empty:
            return
        self._last[place] = epoch
        if names := latents.overwritten():
            self._warned = True
            rank_zero_warn(
                f"something writes into {listed(names)} after the optimizer has stepped, which the next step "
                "undoes. To clip or normalize weights, do so in optimizer.register_step_post_hook(...), in "
                "configure_optimizers: there the weights have full precision"
            )
