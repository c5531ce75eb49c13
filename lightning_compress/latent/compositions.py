"""Compositions: several projections, one after the other, of weights and what the forward pass adds to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch import Tensor

from lightning_compress.blocks import portions
from lightning_compress.latent.differences import check_finite
from lightning_compress.latent.exchanges import write_
from lightning_compress.latent.projections import Projection

__all__ = ["Composition", "Offset"]

Offset: TypeAlias = Callable[[], Tensor]
"""Gives the present offset of one parameter, in its shape, such as the sum of its adapters."""


class Composition:
    """``P3(P2(P1(weight + offset))) - offset``; most weights have no offset.

    Args:
        projections: in their order.
    """

    def __init__(self, projections: Sequence[Projection]) -> None:
        self._projections = tuple(projections)

    def active(self, names: Iterable[str]) -> list[str]:
        """Those of the named weights that a projection is active for."""
        active = set[str]().union(*(projection.active for projection in self._projections))
        return [name for name in names if name in active]

    def update_(
        self, weights: Mapping[str, Tensor], offsets: Mapping[str, Offset], due: Collection[Projection]
    ) -> None:
        """Overwrite weights, after an update of the projections that are due, each from what those before it left."""
        with _shifted(weights, offsets) as sums:
            for projection in self._projections:
                mine = _of(projection, sums)
                if mine and projection in due:
                    with _explained(mine):
                        projection.update(mine)
                if mine:
                    projection.project_(mine)

    def project_(
        self,
        weights: Mapping[str, Tensor],
        offsets: Mapping[str, Offset],
        latents: Mapping[str, Tensor] = MappingProxyType({}),
    ) -> None:
        """``weight = P(latent + offset) - offset``, weights with offsets some at a time.

        Args:
            weights: name -> weight, overwritten.
            offsets: name -> offset, of some of them.
            latents: name -> latent, of some of them; the others hold theirs.
        """
        for some in _together(weights, offsets):
            with _shifted(some, offsets, latents, keep=True) as sums:
                for projection in self._projections:
                    if mine := _of(projection, sums):
                        projection.project_(mine)

    def projected(
        self, latents: Mapping[str, Tensor], offsets: Mapping[str, Offset], held: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The weights of latents, in new memory and in the precision of the tensors that are held in their places."""
        weights = {name: torch.empty_like(held[name]) for name in latents}
        self.project_(weights, offsets, latents)
        return weights

    def differing(
        self, latents: Mapping[str, Tensor], offsets: Mapping[str, Offset], held: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """The weights of those latents of which something else is held; the memory of the others is given back.

        Args:
            latents: name -> latent.
            offsets: name -> offset, of some of them.
            held: name -> weight, of each of them.
        """
        differing: dict[str, Tensor] = {}
        for some in _together(latents, offsets):
            weights = self.projected(some, offsets, held)
            differing |= {name: weight for name, weight in weights.items() if not torch.equal(weight, held[name])}
        return differing

    def stages(
        self, weights: Mapping[str, Tensor], offsets: Mapping[str, Offset]
    ) -> Iterator[tuple[Projection, Mapping[str, Tensor]]]:
        """Overwrite weights: yield each projection in turn, with all sums of weight and offset as it leaves them."""
        with _shifted(weights, offsets) as sums:
            for projection in self._projections:
                if mine := _of(projection, sums):
                    projection.project_(mine)
                    yield projection, sums

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        """Turn gradients at the projected weights into those of the latents, in place."""
        for projection in reversed(self._projections):
            if mine := _of(projection, gradients):
                projection.backward_(mine, latents)


def _together(weights: Mapping[str, Tensor], offsets: Mapping[str, Offset]) -> Iterator[dict[str, Tensor]]:
    """Weights projected together: all without offsets, which may share a codebook; then the others, in portions."""
    plain = {name: weight for name, weight in weights.items() if name not in offsets}
    if plain:
        yield plain
    yield from portions({name: weight for name, weight in weights.items() if name in offsets})


def _of(projection: Projection, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the tensors that the projection is active for."""
    active = projection.active
    return {name: tensor for name, tensor in tensors.items() if name in active}


@contextmanager
def _explained(weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Let an error of code that reads weights which are not finite say that the training has diverged."""
    try:
        yield
    except Exception as error:
        try:
            check_finite(weights)
        except RuntimeError as reason:
            raise reason from error
        raise


@contextmanager
def _shifted(
    weights: Mapping[str, Tensor],
    offsets: Mapping[str, Offset],
    latents: Mapping[str, Tensor] = MappingProxyType({}),
    *,
    keep: bool = False,
) -> Iterator[dict[str, Tensor]]:
    """Let weights hold ``latent + offset``, in a ``with`` statement, and subtract the offsets at its end.

    A weight of shorter precision than its offset is shifted in a copy.

    Args:
        weights: name -> weight, overwritten.
        offsets: name -> offset, of some of them.
        latents: name -> latent, of some of them; the others hold theirs.
        keep: the offsets, which take as much memory as the weights; else they are computed twice.

    >>> weights = {"p": torch.tensor([0.25])}
    >>> with _shifted(weights, {"p": lambda: torch.tensor([0.5])}) as sums:
    ...     _ = sums["p"].round_()
    >>> weights["p"].tolist()
    [0.5]
    """
    sums, kept = dict(weights), dict[str, Tensor]()
    write_(sums, {name: latents[name] for name in weights if name in latents and name not in offsets})
    names = [name for name in weights if name in offsets]
    for name in names:
        weight, latent, offset = weights[name], latents.get(name, weights[name]), offsets[name]()
        if latent.dtype != weight.dtype:
            latent = weight.copy_(latent)
        in_place = torch.promote_types(offset.dtype, weight.dtype) == weight.dtype
        sums[name] = torch.add(latent, offset, out=weight) if in_place else latent + offset
        if keep:
            kept[name] = offset
    yield sums
    for name in names:
        weight, offset = weights[name], kept[name] if keep else offsets[name]()
        if sums[name] is weight:
            weight.sub_(offset)
        else:
            weight.copy_(sums[name] - offset)
