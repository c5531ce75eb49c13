"""Latent weights: the full-precision copies behind the weights that ship.

Between optimizer steps a parameter ``p`` holds the projected weight ``P(latent)``; only while its optimizer steps does
it hold the latent. The gradient taken at ``P(latent)`` updates the latent (straight-through estimator)::

    restore    p = latent                      just before the optimizer step
    compress   latent = p ; p = P(latent)      just after it

Where ``P`` is a mask that masks the gradient too, what it hides stands still and what it shows is its own latent: then
nothing is restored, and ``compress`` is ``p = P(p)``.

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
    """What a method does to weights: ``P``, its state, and how the gradient goes back through it."""

    @property
    def active(self) -> Collection[str]:
        """Names of the parameters that are projected now; empty before the method begins."""

    @property
    def still(self) -> bool:
        """Whether ``P`` is a mask whose zeros also mask the gradient: behind them latents stand still until renewed."""

    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Renew what ``P`` depends on (masks, codebooks) from the weights as earlier projections left them."""

    def project_(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite each weight, which holds its latent, by its projection."""

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        """Turn gradients at the projected weights into gradients of the latents, in place; often nothing to do."""


class LatentWeights:
    """The latents of some parameters, exchanged with the parameters in place.

    A parameter that no projection is active for is its own latent: it costs no memory and no time. One behind whose
    masks latents stand still is left in place while its optimizer steps, and masked again; its latent is brought up to
    date when it is needed. Sharded parameters (``DTensor``) are worked on shard by shard.

    Args:
        parameters: name -> parameter.
        projections: applied one after the other, ``P3(P2(P1(latent)))``.

    >>> class Sign:
    ...     active, still = ("p",), False
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
        self._latents: dict[str, Tensor] = {}
        self._restored: set[str] = set()
        self._still: set[str] = set()  # names whose latents lag behind, where their masks let weights learn

    @property
    def latents(self) -> Mapping[str, Tensor]:
        """Name -> latent (this rank's shard of it) of those parameters that have one; read only.

        Where latents stand still they are as of the last :meth:`catch_up`.
        """
        return self._latents

    @property
    def restored(self) -> frozenset[str]:
        """Names of the parameters that their optimizer is about to step, or steps at this moment."""
        return frozenset(self._restored)

    @torch.no_grad()
    def restore(self, names: Iterable[str]) -> None:
        """``p = latent`` for those of the named parameters that have a latent."""
        known = [name for name in names if name in self._latents]
        moving = [name for name in known if name not in self._still]
        if moving:
            torch._foreach_copy_([self._weight(name) for name in moving], [self._latents[name] for name in moving])
        self._restored.update(known)

    @torch.no_grad()
    def compress(self, names: Iterable[str]) -> None:
        """``latent = p ; p = P(latent)`` for those of the named parameters that a projection is active for."""
        names = self._active(names)
        self._take([name for name in names if name not in self._still])
        self._project(names)

    @torch.no_grad()
    def renew(self, due: Collection[Projection]) -> None:
        """Update the projections that are due, each from the weights as those before it left them, and project anew."""
        self._wake()
        names = self._active(self._parameters)
        held = [name for name in names if name not in self._restored]
        self.restore(held)
        self._take([name for name in names if name not in self._latents])
        self._project(names, due)
        self._forget_idle()

    @torch.no_grad()
    def catch_up(self) -> None:
        """Bring all latents up to date: where a mask lets weights learn, the parameter is the latent."""
        for name in self._still:
            latent = self._latents[name]
            kept = torch.ones_like(latent)
            for projection in self._projections:
                if projection.still and name in projection.active:
                    projection.project_({name: kept})
            latent.copy_(torch.where(kept != 0, self._weight(name), latent))

    @torch.no_grad()
    def backward(self, gradients: Mapping[str, Tensor]) -> None:
        """Turn gradients (of this rank's shards) at the projected weights into those of the latents, in place."""
        for projection in reversed(self._projections):
            mine = {name: gradient for name, gradient in gradients.items() if name in projection.active}
            if mine:
                projection.backward_(mine, self._latents)

    @torch.no_grad()
    def project(self, weights: Mapping[str, Tensor]) -> None:
        """Project tensors other than the parameters, by the name of the parameter that each stands for, in place."""
        for projection in self._projections:
            mine = {name: weight for name, weight in weights.items() if name in projection.active}
            if mine:
                projection.project_(mine)

    def stages(self) -> Iterator[tuple[Projection, Mapping[str, Tensor]]]:
        """Project copies of the latents: each projection in turn, with all weights as it leaves them.

        Raises:
            RuntimeError: in the end these are not what the parameters hold.
        """
        self.catch_up()
        weights = {name: latent.clone() for name, latent in self._latents.items()}
        for projection in self._projections:
            mine = {name: weight for name, weight in weights.items() if name in projection.active}
            if mine:
                projection.project_(mine)
                yield projection, weights
        for name, others in self._strangers(weights).items():
            raise RuntimeError(
                f"need {name!r} to hold its compressed weights, got others in {others} of {weights[name].numel()} "
                "places: something wrote into the parameter after the optimizer had stepped"
            )

    @torch.no_grad()
    def overwritten(self) -> list[str]:
        """Names of the parameters that do not hold their projected latents: another hand wrote into them."""
        self.catch_up()
        weights = {name: latent.clone() for name, latent in self._latents.items()}
        self.project(weights)
        return list(self._strangers(weights))

    def _strangers(self, weights: Mapping[str, Tensor]) -> dict[str, int]:
        """Name -> in how many places the parameter is not this weight, of those that are not."""
        differ = {name: (weight != self._weight(name)) & ~weight.isnan() for name, weight in weights.items()}
        counts = {name: int(torch.count_nonzero(places)) for name, places in differ.items()}
        return {name: count for name, count in counts.items() if count}

    @torch.no_grad()
    def adopt(self) -> None:
        """Take what another hand (weight averaging, say) wrote into the parameters as their latents, and project it."""
        held = {name: self._weight(name).clone() for name in self._latents}
        before = {name: latent.clone() for name, latent in self._latents.items()}
        self._wake()
        self.restore(held)
        self._project(list(held))
        changed = [name for name in held if not torch.equal(self._weight(name), held[name])]
        if changed:
            self._wake()
            self.restore(held)
            for name in changed:
                # What was zero in all that was averaged, and is not masked now, would be a zero too many.
                self._weight(name).copy_(torch.where(held[name] == 0, before[name], held[name]))
            self.compress(held)

    def load(self, latents: Mapping[str, Tensor]) -> None:
        """Take unsharded ``latents`` of a checkpoint, where a projection is active; the parameters keep what they hold.

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
            self._latents[name] = shard(latent.to(parameter.device, parameter.dtype), parameter).clone()
        # A checkpoint that was written after fit holds none: there the weights are their own latents.
        self._take([name for name in self._active(self._parameters) if name not in self._latents])
        self._forget_idle()
        self._still.update(name for name in self._latents if self._stands(name))

    def save(self) -> dict[str, Tensor]:
        """Name -> unsharded latent, as ``load`` takes them. Sharded latents are gathered: call it on every rank."""
        self.catch_up()
        return {name: gather(latent, self._parameters[name]) for name, latent in self._latents.items()}

    def replace(self, parameters: Mapping[str, Tensor | None], narrow: Callable[[str, Tensor], Tensor]) -> None:
        """Go on with other parameters in place of those of the same names.

        Args:
            parameters: name -> new parameter, which holds the projected weight; None for one that is gone, and with it
                its latent.
            narrow: name, latent of the old parameter -> latent of the new one. A latent that no projection is active
                for any more is forgotten.
        """
        now = {name: parameters.get(name, old) for name, old in self._parameters.items()}
        self._parameters = {name: parameter for name, parameter in now.items() if parameter is not None}
        self._latents = {
            name: narrow(name, self._latents[name]) if name in parameters else self._latents[name]
            for name in self._active(self._latents)
        }

    def drop(self) -> None:
        """Forget the latents; the parameters keep what they hold."""
        self._latents.clear()
        self._still.clear()
        self._restored.clear()

    def _active(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if any(name in projection.active for projection in self._projections)]

    def _forget_idle(self) -> None:
        """Nothing projects them: a method waits to begin, or that of the checkpoint is not here."""
        for name in self._latents.keys() - self._active(self._latents):
            del self._latents[name]
            self._still.discard(name)

    def _stands(self, name: str) -> bool:
        return all(projection.still for projection in self._projections if name in projection.active)

    def _wake(self) -> None:
        """From here on latents are exchanged with their parameters, until they are projected again."""
        self.catch_up()
        self._still.clear()

    def _take(self, names: Sequence[str]) -> None:
        known = [name for name in names if name in self._latents]
        if known:
            torch._foreach_copy_([self._latents[name] for name in known], [self._weight(name) for name in known])
        for name in names:
            if name not in self._latents:
                self._latents[name] = self._weight(name).clone()

    def _project(self, names: Sequence[str], due: Collection[Projection] = ()) -> None:
        weights = {name: self._weight(name) for name in names}
        for projection in self._projections:
            mine = {name: weight for name, weight in weights.items() if name in projection.active}
            if mine and projection in due:
                projection.update(mine)
            if mine:
                projection.project_(mine)
        self._restored.difference_update(names)
        self._still.update(name for name in names if self._stands(name))

    def _weight(self, name: str) -> Tensor:
        return local(self._parameters[name].detach())
