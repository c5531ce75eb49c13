"""The latents of some parameters, and their exchange with the parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from lightning_compress.latent.compositions import Composition, Offset
from lightning_compress.latent.differences import check_exact, check_finite, check_fitting, check_same, rewritten
from lightning_compress.latent.exchanges import store_, write_
from lightning_compress.latent.masked import MaskedWeights
from lightning_compress.latent.projections import Projection
from lightning_compress.processes import gather, local, shard

__all__ = ["LatentWeights"]


class LatentWeights:
    """The latents of some parameters, exchanged with the parameters in place.

    A parameter that no projection is active for is its own latent: it costs no memory and no time. A parameter whose
    projections all mask in place is not exchanged. A parameter that other code writes into, such as a target network,
    is opened: it holds its latent, and is projected where it is seen (:meth:`compressed`). A parameter with an offset
    holds ``P(latent + offset) - offset``; if it is frozen, its latent never changes. Sharded parameters (``DTensor``)
    are handled shard by shard.

    Args:
        parameters: name -> parameter.
        projections: applied one after the other, ``P3(P2(P1(latent)))``.

    Attributes:
        offsets: name -> offset, of the parameters to which the forward pass adds something.
        half: whether the latents of frozen parameters with offsets are kept in bfloat16, rounded.

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
        self._projections = Composition(projections)
        self._exchanged: dict[str, Tensor] = {}  # name -> latent
        self._masked = MaskedWeights(tuple(projections))
        self._restored, self._open = set[str](), set[str]()
        self.offsets: Mapping[str, Offset] = {}
        self.half = False

    @property
    def empty(self) -> bool:
        """Whether no parameter has a latent."""
        return not (self._exchanged or self._masked.hidden or self._projections.active(self._open))

    def latents(self) -> dict[str, Tensor]:
        """Name -> copy of the latent (this rank's shard of it), of those parameters that have one."""
        held = self._exchanged | self._held(self._projections.active(self._open))
        return {**self._masked.latents(self._weight), **{name: latent.clone() for name, latent in held.items()}}

    def of_frozen(self) -> dict[str, Tensor]:
        """Name -> latent, of the frozen parameters with offsets; read only."""
        frozen = [name for name in self._exchanged if not self._changeable([name])]
        return {name: self._exchanged[name].to(self._parameters[name].dtype) for name in frozen}

    @property
    def restored(self) -> frozenset[str]:
        """Names of the parameters that their optimizer is about to step, or steps at this moment."""
        return frozenset(self._restored)

    @property
    def opened(self) -> frozenset[str]:
        """Names of the parameters that hold their latents, since other code writes into them."""
        return frozenset(self._open)

    @torch.no_grad()
    def restore(self, names: Iterable[str]) -> None:
        """``p = latent`` for those of the named parameters that have a latent."""
        names = list(names)
        has_latent = self._exchanged.keys() | self._masked.hidden.keys() | set(self._projections.active(self._open))
        moved = {name: self._exchanged[name] for name in names if name in self._exchanged}
        write_(self._held(moved), moved)
        self._restored.update(has_latent.intersection(names))

    @torch.no_grad()
    def compress(self, names: Iterable[str], moved: Iterable[str] = ()) -> None:
        """``latent = p ; p = P(latent)`` for those of the named parameters that a projection is active for.

        Args:
            names: the parameters.
            moved: parameters whose offsets changed: ``p = P(latent + offset) - offset``, with the latent as it was.
        """
        self._open.difference_update(self._restored.intersection(names))
        active = [name for name in self._changeable(self._projections.active(names)) if name not in self._open]
        self._keep(self._held([name for name in active if name not in self._masked.hidden]))
        stepping = {*active, *self._changeable(self._restored)}
        still = [name for name in self._projections.active(moved) if name not in stepping]
        latents = {name: self._exchanged[name] for name in still if name in self._exchanged}
        self._project([*active, *latents], latents)

    @torch.no_grad()
    def update(self, due: Collection[Projection]) -> None:
        """Update the due projections, each from the weights as those before it left them; project all weights anew."""
        self.unmask()
        names = self._projections.active(self._parameters)
        closed = [name for name in names if name not in self._open]
        self._keep(self._held(new := [name for name in closed if name not in self._exchanged]))
        self.restore([name for name in closed if name not in self._restored])
        self._restored.difference_update(new)  # if this update fails, nothing can project them
        opened = {name: self._weight(name).clone() for name in names if name in self._open}
        self._projections.update_({**self._held(names), **opened}, self.offsets, due)
        self._restored.difference_update(names)
        self._mask(names)
        self._forget_idle()

    @torch.no_grad()
    def backward(self, gradients: Mapping[str, Tensor]) -> None:
        """Turn gradients (of this rank's shards) at the projected weights into those of the latents, in place."""
        self._projections.backward_(gradients, self._exchanged)

    @torch.no_grad()
    def project(self, weights: Mapping[str, Tensor], offsets: Mapping[str, Offset] | None = None) -> None:
        """Project tensors other than the parameters, by the name of the parameter that each stands for, in place.

        Args:
            weights: name -> tensor.
            offsets: name -> offset, of the tensors; by default those of the parameters.
        """
        self._projections.project_(weights, self.offsets if offsets is None else offsets)

    @torch.no_grad()
    def compressed(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The compressed weights that stand for ``weights``, wherever those are validated or saved; a collective.

        Args:
            weights: name of each parameter -> tensor (this rank's shard of it) that is now in its place. Other code
                may have put an average there.

        Returns:
            name -> projected latent where the tensor holds that, up to rounding errors, else the projected tensor.
        """
        # A parameter that is masked in place holds its own latents, except for those that the mask hides.
        latents = {name: self._exchanged.get(name, weights[name]) for name in self._projections.active(weights)}
        compressed = self._projections.projected(latents, self.offsets, weights)
        if changed := self._changeable(rewritten(compressed, weights)):
            del compressed  # before memory is taken for others
            latents |= {name: weights[name] for name in changed}
            return self._projections.projected(latents, self.offsets, weights)
        return compressed

    def stages(self) -> Iterator[tuple[Projection, Mapping[str, Tensor]]]:
        """Project copies of the latents: yield each projection in turn, with all weights and offsets as it leaves them.

        Raises:
            RuntimeError: a latent is not a number, or the parameters hold other weights than the last of these.
        """
        check_finite(weights := {name: latent.to(self._weight(name).dtype) for name, latent in self.latents().items()})
        yield from self._projections.stages(weights, self.offsets)
        closed = [name for name in weights if name not in self._open]
        check_same({name: weights[name] for name in closed}, self._held(closed))

    @torch.no_grad()
    def overwritten(self) -> list[str]:
        """Names of the parameters that do not hold their projected latents, since other code wrote; a collective."""
        held = self._held(latents := self._exchanged | self._held(self._masked.hidden))
        return rewritten(self._projections.differing(latents, self.offsets, held), held)

    @torch.no_grad()
    def adopt(self) -> None:
        """Take values that other code (weight averaging, say) wrote into the parameters as latents; project them.

        A collective. A value that differs by rounding errors alone is not taken.
        """
        latents = self._exchanged | self._held(self._masked.hidden)
        held = self._held(latents)
        differing = self._projections.differing(latents, self.offsets, held)
        if not (changed := self._changeable(rewritten(differing, held))):
            write_(held, differing)
            self._restored.difference_update(held)
            return
        del differing  # before memory is taken for others
        for name in changed:
            given = self._weight(name)
            latent = self._masked.hidden.pop(name) if name in self._masked.hidden else self._exchanged[name]
            # Restore entries that averaging left zero but the mask keeps.
            self._exchanged[name] = torch.where(given == 0, latent, given, out=latent)
        self.unmask()
        self._project(list(latents), self._exchanged)

    def open(self, names: Iterable[str]) -> None:
        """Let the named parameters hold their present values as latents until an optimizer steps them."""
        for name in names:
            self._exchanged.pop(name, None)
            self._masked.hidden.pop(name, None)
            self._open.add(name)

    def close(self) -> None:
        """Project the parameters that were opened."""
        opened, self._open = self._open, set()
        self.compress(opened)

    @torch.no_grad()
    def load(self, latents: Mapping[str, Tensor], opened: Collection[str] = ()) -> None:
        """Take unsharded ``latents`` of a checkpoint; the parameters stay as they are, except for those ``opened``.

        Raises:
            ValueError: a latent belongs to no parameter here, has another shape, or would be rounded.
        """
        check_fitting(latents, self._parameters)
        own = self._parameters
        self._keep({n: shard(latent.to(own[n].device, own[n].dtype), own[n]) for n, latent in latents.items()})
        check_exact(latents, self._exchanged)
        for name in self._exchanged.keys() & set(opened):
            self._weight(name).copy_(self._exchanged[name])
        self.open(opened)
        # A checkpoint that was written after fit holds no latents: there the weights are their own latents.
        active, known = self._projections.active(self._parameters), self._exchanged.keys() | self._open
        self._keep(self._held(name for name in active if name not in known))
        self._forget_idle()
        self._mask(list(self._exchanged))

    def save(self) -> dict[str, Tensor]:
        """Name -> unsharded latent, as ``load`` takes them. Sharded latents are gathered: call it on every rank."""
        return {name: gather(latent, self._parameters[name]) for name, latent in self.latents().items()}

    def unmask(self) -> None:
        """Exchange all parameters until they are projected again: to be called before masks change."""
        self._exchanged.update(self._masked.release(self._weight))

    def replace(self, parameters: Mapping[str, Tensor | None], remove: Callable[[str, Tensor], Tensor]) -> None:
        """Continue with other parameters in place of those of the same names, after :meth:`unmask`.

        Args:
            parameters: name -> new parameter, which holds the projected weight; None for one that is gone.
            remove: name, latent of the old parameter -> latent of the new one.
        """
        now = {name: parameters.get(name, old) for name, old in self._parameters.items()}
        self._parameters = {name: parameter for name, parameter in now.items() if parameter is not None}
        latents = {name: self._exchanged[name] for name in self._projections.active(self._exchanged)}
        self._exchanged = {name: remove(name, old) if name in parameters else old for name, old in latents.items()}
        self._open &= self._parameters.keys()
        self._mask(list(self._exchanged))

    def take_up(self, parameters: Mapping[str, Tensor]) -> None:
        """Add parameters, which hold their latents now, after :meth:`unmask`; they may replace those of their names."""
        self._parameters.update(parameters)
        for name in parameters:
            self._exchanged.pop(name, None)
            self._open.discard(name)

    def finish(self) -> None:
        """Project all parameters that hold their latents, and forget the latents."""
        self.compress(self._restored)
        self.close()
        self.drop()

    def drop(self) -> None:
        """Forget the latents; the parameters keep their values."""
        self._exchanged.clear()
        self._masked.hidden.clear()
        self._restored.clear()
        self._open.clear()

    def _changeable(self, names: Iterable[str]) -> list[str]:
        """Those whose latents may change: frozen parameters move by their offsets alone."""
        return [name for name in names if name not in self.offsets or self._parameters[name].requires_grad]

    def _keep(self, latents: Mapping[str, Tensor]) -> None:
        store_(self._exchanged, latents, latents.keys() - self._changeable(latents) if self.half else ())

    def _forget_idle(self) -> None:
        """Forget latents that nothing projects: a method waits to begin, or is missing that wrote the checkpoint."""
        self._exchanged = {name: self._exchanged[name] for name in self._projections.active(self._exchanged)}

    def _project(self, names: Sequence[str], latents: Mapping[str, Tensor]) -> None:
        """``p = P(latent)``; a parameter holds its latent if there is none."""
        self._projections.project_(self._held(names), self.offsets, latents)
        self._restored.difference_update(names)
        self._mask(names)

    def _mask(self, names: Iterable[str]) -> None:
        """Exchange those of the named parameters no longer whose projections all mask in place."""
        covered = self._masked.covered()
        for name in names:
            if name in covered and name in self._exchanged and name not in self.offsets:
                self._masked.hidden[name] = self._exchanged.pop(name)

    def _held(self, names: Iterable[str]) -> dict[str, Tensor]:
        return {name: self._weight(name) for name in names}

    def _weight(self, name: str) -> Tensor:
        return local(self._parameters[name].detach())
