"""Latent weights: the full-precision copies of projected weights.

Between optimizer steps a parameter ``p`` holds the projected weight ``P(latent)``; while its optimizer steps it holds
the latent, which the gradient taken at ``P(latent)`` updates (straight-through). ``training/run.py`` exchanges them::

    restore    p = latent                      just before the optimizer step
    compress   latent = p ; p = P(latent)      just after it

A mask that also masks the gradient needs no exchange: masked entries do not learn, all others equal their latents.

Papers: Courbariaux et al., "BinaryConnect: Training Deep Neural Networks with binary weights during propagations",
https://arxiv.org/abs/1511.00363 (2015); Bai et al., "ProxQuant: Quantized Neural Networks via Proximal Operators",
https://arxiv.org/abs/1810.00861 (2018); Lin et al., "Dynamic Model Pruning with Feedback",
https://arxiv.org/abs/2006.07253 (2020).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lightning_compress.processes import gather, local, shard

__all__ = ["LatentWeights", "Projection"]


class Projection(Protocol):
    """A map ``P`` of latents to compressed weights, with its state and the way of the gradient back through it."""

    @property
    def active(self) -> Collection[str]:
        """Names of the parameters that are projected now; empty before the method begins."""

    @property
    def masks_in_place(self) -> bool:
        """Whether ``P`` only masks, masked entries get no gradient, and nothing reads their latents between updates."""

    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Compute the state of ``P`` (masks, codebooks) from the weights as earlier projections left them."""

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite each weight, which holds its latent, by its projection."""

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        """Turn gradients at the projected weights into gradients of the latents, in place.

        ``latents`` lacks the parameters whose projections all mask in place.
        """


class LatentWeights:
    """The latents of some parameters, exchanged with the parameters in place.

    A parameter that no projection is active for is its own latent: it costs no memory and no time. A parameter whose
    projections all mask in place is not exchanged. Sharded parameters (``DTensor``) are handled shard by shard.

    Args:
        parameters: name -> parameter.
        projections: applied one after the other, ``P3(P2(P1(latent)))``.

    >>> class Sign:
    ...     active, masks_in_place = ("p",), False
    ...     def project_(self, weights):
    ...         for weight in weights.values():
    ...             weight.sign_()
    >>> p = torch.nn.Parameter(torch.tensor([0.3, -2.0]))
    >>> weights = LatentWeights({"p": p}, [Sign()])
    >>> weights.compress(["p"]); p.tolist()
    [1.0, -1.0]
    >>> weights.restore(["p"]); p.tolist()
    [0.30000001192092896, -2.0]
    """

    def __init__(self, parameters: Mapping[str, Tensor], projections: Sequence[Projection]) -> None:
        self._parameters = dict(parameters)
        self._projections = tuple(projections)
        self._exchanged: dict[str, Tensor] = {}  # name -> latent
        self._masked = _MaskedWeights(self._projections)
        self._restored: set[str] = set()

    @property
    def latents(self) -> Mapping[str, Tensor]:
        """Name -> latent (this rank's shard of it) of those parameters that have one; read only."""
        return {**self._exchanged, **self._masked.latents(self._weight)}

    @property
    def restored(self) -> frozenset[str]:
        """Names of the parameters that their optimizer is about to step, or steps at this moment."""
        return frozenset(self._restored)

    @torch.no_grad()
    def restore(self, names: Iterable[str]) -> None:
        """``p = latent`` for those of the named parameters that have a latent."""
        known = [name for name in names if name in self._exchanged or name in self._masked.hidden]
        moved = [name for name in known if name in self._exchanged]
        if moved:
            torch._foreach_copy_([self._weight(name) for name in moved], [self._exchanged[name] for name in moved])
        self._restored.update(known)

    @torch.no_grad()
    def compress(self, names: Iterable[str]) -> None:
        """``latent = p ; p = P(latent)`` for those of the named parameters that a projection is active for."""
        active = self._active(names)
        self._store([name for name in active if name not in self._masked.hidden])
        self._project(active)

    @torch.no_grad()
    def update(self, due: Collection[Projection]) -> None:
        """Update the due projections, each from the weights as those before it left them; project all weights anew."""
        self.unmask()
        names = self._active(self._parameters)
        self.restore([name for name in names if name not in self._restored])
        self._store([name for name in names if name not in self._exchanged])
        self._project(names, due)
        self._forget_idle()

    @torch.no_grad()
    def backward(self, gradients: Mapping[str, Tensor]) -> None:
        """Turn gradients (of this rank's shards) at the projected weights into those of the latents, in place."""
        for projection in reversed(self._projections):
            if mine := _of(projection, gradients):
                projection.backward_(mine, self._exchanged)

    @torch.no_grad()
    def project(self, weights: Mapping[str, Tensor]) -> None:
        """Project tensors other than the parameters, by the name of the parameter that each stands for, in place."""
        for projection in self._projections:
            if mine := _of(projection, weights):
                projection.project_(mine)

    def stages(self) -> Iterator[tuple[Projection, Mapping[str, Tensor]]]:
        """Project copies of the latents: yield each projection in turn, with all weights as it leaves them.

        Raises:
            RuntimeError: the last of these weights differ from those that the parameters hold.
        """
        weights = {name: latent.clone() for name, latent in self.latents.items()}
        for projection in self._projections:
            if mine := _of(projection, weights):
                projection.project_(mine)
                yield projection, weights
        for name, count in self._differences(weights).items():
            raise RuntimeError(
                f"need {name!r} to hold its compressed weights, got others in {count} of {weights[name].numel()} "
                "places: something wrote into the parameter after the optimizer had stepped"
            )

    @torch.no_grad()
    def overwritten(self) -> list[str]:
        """Names of the parameters that do not hold their projected latents, since other code wrote into them."""
        weights = {name: latent.clone() for name, latent in self.latents.items()}
        self.project(weights)
        return list(self._differences(weights))

    @torch.no_grad()
    def adopt(self) -> None:
        """Take values that other code (weight averaging, say) wrote into the parameters as latents; project them."""
        before = {name: latent.clone() for name, latent in {**self._exchanged, **self._masked.hidden}.items()}
        given = {name: self._weight(name).clone() for name in before}
        self.unmask()
        self.restore(given)
        self._project(list(given))
        changed = [name for name in given if not torch.equal(self._weight(name), given[name])]
        if changed:
            self.unmask()
            self.restore(given)
            for name in changed:
                # Restore entries that averaging left zero but the mask keeps.
                self._weight(name).copy_(torch.where(given[name] == 0, before[name], given[name]))
            self.compress(given)

    def load(self, latents: Mapping[str, Tensor]) -> None:
        """Take unsharded ``latents`` of a checkpoint, where a projection is active; the parameters stay as they are.

        Raises:
            ValueError: a latent belongs to no parameter here, or has another shape.
        """
        for name, latent in latents.items():
            parameter = self._parameters.get(name)
            if parameter is None or parameter.shape != latent.shape:
                raise ValueError(
                    f"need latent weights of the targeted parameters, got {name!r} of shape {tuple(latent.shape)}: "
                    "resume with the include and exclude patterns that the checkpoint was written with"
                )
            self._exchanged[name] = shard(latent.to(parameter.device, parameter.dtype), parameter).clone()
        # A checkpoint that was written after fit holds no latents: there the weights are their own latents.
        self._store([name for name in self._active(self._parameters) if name not in self._exchanged])
        self._forget_idle()
        self._mask(list(self._exchanged))

    def save(self) -> dict[str, Tensor]:
        """Name -> unsharded latent, as ``load`` takes them. Sharded latents are gathered: call it on every rank."""
        return {name: gather(latent, self._parameters[name]) for name, latent in self.latents.items()}

    @torch.no_grad()
    def unmask(self) -> None:
        """Exchange all parameters until they are projected again: to be called before masks change."""
        self._exchanged.update(self._masked.latents(self._weight))
        self._masked.hidden.clear()

    def replace(self, parameters: Mapping[str, Tensor | None], remove: Callable[[str, Tensor], Tensor]) -> None:
        """Continue with other parameters in place of those of the same names, after :meth:`unmask`.

        Latents that no projection is active for any more are forgotten.

        Args:
            parameters: name -> new parameter, which holds the projected weight; None for one that is gone.
            remove: name, latent of the old parameter -> latent of the new one.
        """
        now = {name: parameters.get(name, old) for name, old in self._parameters.items()}
        self._parameters = {name: parameter for name, parameter in now.items() if parameter is not None}
        self._exchanged = {
            name: remove(name, self._exchanged[name]) if name in parameters else self._exchanged[name]
            for name in self._active(self._exchanged)
        }
        self._mask(list(self._exchanged))

    def drop(self) -> None:
        """Forget the latents; the parameters keep their values."""
        self._exchanged.clear()
        self._masked.hidden.clear()
        self._restored.clear()

    def _active(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if any(name in projection.active for projection in self._projections)]

    def _forget_idle(self) -> None:
        """Forget latents that nothing projects: a method waits to begin, or is missing that wrote the checkpoint."""
        for name in self._exchanged.keys() - self._active(self._exchanged):
            del self._exchanged[name]

    def _store(self, names: Sequence[str]) -> None:
        """``latent = p``."""
        known = [name for name in names if name in self._exchanged]
        if known:
            torch._foreach_copy_([self._exchanged[name] for name in known], [self._weight(name) for name in known])
        self._exchanged.update({name: self._weight(name).clone() for name in names if name not in self._exchanged})

    def _project(self, names: Sequence[str], due: Collection[Projection] = ()) -> None:
        """``p = P(p)``, after an update of the projections that are due."""
        weights = {name: self._weight(name) for name in names}
        for projection in self._projections:
            mine = _of(projection, weights)
            if mine and projection in due:
                projection.update(mine)
            if mine:
                projection.project_(mine)
        self._restored.difference_update(names)
        self._mask(names)

    def _mask(self, names: Iterable[str]) -> None:
        """Exchange those of the named parameters no longer whose projections all mask in place."""
        for name in names:
            if name in self._exchanged and self._masked.covers(name):
                self._masked.hidden[name] = self._exchanged.pop(name)

    def _differences(self, weights: Mapping[str, Tensor]) -> dict[str, int]:
        """Parameter name -> number of elements that differ from ``weights``, where there are any."""
        differ = {name: (weight != self._weight(name)) & ~weight.isnan() for name, weight in weights.items()}
        return {name: int(places.count_nonzero()) for name, places in differ.items() if places.any()}

    def _weight(self, name: str) -> Tensor:
        return local(self._parameters[name].detach())


class _MaskedWeights:
    """Latents of the parameters that are masked in place: ``latent = where(mask, p, hidden)``.

    Args:
        projections: all projections.
    """

    def __init__(self, projections: Sequence[Projection]) -> None:
        self._projections = projections
        self.hidden: dict[str, Tensor] = {}
        """Name -> tensor of the weight's shape that holds the latents of masked entries; other entries are unused."""

    def covers(self, name: str) -> bool:
        """Whether a parameter is projected, and all of its projections mask in place."""
        masks = [projection.masks_in_place for projection in self._projections if name in projection.active]
        return bool(masks) and all(masks)

    def latents(self, weight: Callable[[str], Tensor]) -> dict[str, Tensor]:
        """Name -> latent of every parameter that is masked in place; ``weight`` gives the parameter of a name."""
        return {name: torch.where(self._mask(name), weight(name), hidden) for name, hidden in self.hidden.items()}

    def _mask(self, name: str) -> Tensor:
        ones = torch.ones_like(self.hidden[name])
        for projection in self._projections:
            if name in projection.active and projection.masks_in_place:
                projection.project_({name: ones})
        return ones != 0


def _of(projection: Projection, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of the tensors that the projection is active for."""
    return {name: tensor for name, tensor in tensors.items() if name in projection.active}
