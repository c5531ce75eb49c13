"""Compositions: several projections, one after the other, of weights and what the forward pass adds to them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

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

    def project_(
        self, weights: Mapping[str, Tensor], offsets: Mapping[str, Offset], due: Collection[Projection] = ()
    ) -> None:
        """Overwrite weights, after an update of the projections that are due, each from what those before it left."""
        with _shifted(weights, offsets) as sums:
            for projection in self._projections:
                mine = _of(projection, sums)
                if mine and projection in due:
                    projection.update(mine)
                if mine:
                    projection.project_(mine)

    def projected(self, weights: Mapping[str, Tensor], offsets: Mapping[str, Offset]) -> dict[str, Tensor]:
        """Projected copies of weights."""
        copies = {name: weight.clone() for name, weight in weights.items()}
        self.project_(copies, offsets)
        return copies

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


def _of(projection: Projection, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the tensors that the projection is active for."""
    active = projection.active
    return {name: tensor for name, tensor in tensors.items() if name in active}


@contextmanager
def _shifted(weights: Mapping[str, Tensor], offsets: Mapping[str, Offset]) -> Iterator[dict[str, Tensor]]:
    """Add the offsets to weights, in a ``with`` statement, and subtract them at its end.

    The offsets of several weights are computed twice: to keep them all would take as much memory as the weights. A
    weight of shorter precision than its offset is shifted in a copy.

    Args:
        weights: name -> weight, overwritten.
        offsets: name -> offset, of some of them.

    >>> weights = {"p": torch.tensor([0.25])}
    >>> with _shifted(weights, {"p": lambda: torch.tensor([0.5])}) as sums:
    ...     _ = sums["p"].round_()
    >>> weights["p"].tolist()
    [0.5]
    """
    sums, kept = dict(weights), dict[str, Tensor]()
    names = weights.keys() & offsets.keys()
    for name in names:
        offset = offsets[name]()
        if len(names) == 1:
            kept[name] = offset
        precise = torch.promote_types(offset.dtype, weights[name].dtype)
        sums[name] = weights[name].to(precise).add_(offset)
    yield sums
    for name in names:
        offset = kept[name] if kept else offsets[name]()
        if sums[name] is weights[name]:
            sums[name].sub_(offset)
        else:
            weights[name].copy_(sums[name] - offset)
