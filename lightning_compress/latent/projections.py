"""Projections: the interface of a method to the latent weights."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from torch import Tensor

__all__ = ["Projection"]


class Projection(Protocol):
    """A map ``P`` of latents to compressed weights, with its state and the way of the gradient back through it."""

    @property
    def active(self) -> Collection[str]:
        """Names of the parameters that are projected now; empty before the method begins."""

    @property
    def masks_in_place(self) -> bool:
        """Whether ``P`` only masks, masked entries get no gradient, and nothing reads their latents between updates."""

    def kept(self, name: str) -> Tensor | None:
        """True for each entry of a parameter that is not masked, None if none is; asked where ``P`` masks in place."""

    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Compute the state of ``P`` (masks, codebooks) from the weights as earlier projections left them."""

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite each weight, which holds its latent, by its projection."""

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        """Turn gradients at the projected weights into gradients of the latents, in place.

        ``latents`` lacks the parameters whose projections all mask in place.
        """
