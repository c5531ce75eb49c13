"""The interface of a method that compresses weights: its targets, its projection, its state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from lightning_compress.arguments import check_count, check_patterns, signature_repr
from lightning_compress.schedules import Schedule, check_schedule, strength_at
from lightning_compress.targets import Selection, Target, is_named, select

__all__ = ["Method", "map_tensors", "names_of"]


class Method(ABC):
    """A :class:`~lightning_compress.latent.Projection` of selected weights, which a schedule strengthens.

    The run calls it; see :class:`~.callback.WeightCompression` for its arguments and its place in a Trainer.
    """

    changeable: ClassVar[frozenset[str]] = frozenset({"schedule", "every_n_steps", "include", "exclude"})
    """Arguments that a resumed run may change. Patterns are among them, as they are a part of ``state_key``."""

    joined: tuple[str, ...] = ()
    """Names of targets that were frozen when ``fit`` began, and are trained now."""

    lowers: ClassVar[bool] = False
    """Whether an exported file holds integer layers in place of those in the Trainer; see :meth:`ship_`."""

    company: Sequence[Method] = ()
    """The methods of the run, this one among them; none before ``fit``."""

    batch: Any = None
    """A training batch for :meth:`select`: the first one of the run, if :meth:`awaits_batch` said so."""

    def __init__(
        self, *, order: int, schedule: Schedule, every_n_steps: int, include: Sequence[str], exclude: Sequence[str]
    ) -> None:
        check_schedule(schedule)
        check_count(every_n_steps=every_n_steps)
        check_patterns(include=include, exclude=exclude)
        self._order = order
        self.schedule = schedule
        self.every_n_steps = every_n_steps
        self.include = tuple(include)
        self.exclude = tuple(exclude)
        self.begin(Selection((), {}))

    def __repr__(self) -> str:
        return signature_repr(self)

    @property
    def order(self) -> int:
        """Place in the order of projection; see :mod:`~.order`."""
        return self._order

    def select(self, module: nn.Module) -> Selection:
        """Choose the parameters of ``module`` to compress: by default the weights that the patterns leave and that fit.

        If none of them fits, all are chosen, and :meth:`check` says what is wrong.
        """
        selection = select(module, (*self.include, *self.joined), self.exclude)
        reasons = {target.name: self.misfit(target) for target in selection if not is_named(target, self.include)}
        fitting = selection.without({name: reason for name, reason in reasons.items() if reason})
        return fitting if fitting.targets else selection

    def awaits_batch(self, module: nn.Module) -> bool:
        """Whether :meth:`select` has to wait for the first training batch; never by default.

        If one method has to, the whole run begins with that batch, before its forward pass.
        """
        return False

    def misfit(self, target: Target) -> str:
        """Why this method leaves ``target`` alone unless a pattern names it, for the printed plan; empty by default."""
        return ""

    def begin(self, selection: Selection) -> None:
        """Start on the selected targets, without state of an earlier run."""
        self.targets: Mapping[str, Target] = {target.name: target for target in selection}
        """Name -> target, of the parameters that this method compresses; empty before ``fit``."""
        self.skipped: Mapping[str, str] = selection.skipped
        """Name -> reason, of the parameters that it leaves alone."""
        self.strength = 0.0
        """Fraction of the asked compression that is reached, in [0, 1]: the schedule's value at the last update."""
        self._awaited: set[str] = set()

    def end(self) -> None:
        """Detach everything from the model, after success and after an exception alike; nothing by default."""
        return

    @property
    def active(self) -> Collection[str]:
        """Names of the parameters that are projected now; empty before the schedule begins."""
        return self.targets.keys() if self.strength > 0 else ()

    @property
    def settled(self) -> bool:
        """Whether nothing is left to update; by default once strength 1 is reached."""
        return self.strength == 1.0

    @property
    def stands(self) -> bool:
        """Whether the model of now may be picked as the best one; by default once strength 1 is reached."""
        return self.strength == 1.0

    @property
    def postponed(self) -> bool:
        """Whether the last update could not take up all targets yet: the next step calls for another."""
        return False

    @property
    def takes_up(self) -> bool:
        """Whether weights may join, or be replaced by others, in the middle of a run; they may by default."""
        return True

    @property
    def masks_in_place(self) -> bool:
        """Whether parameters are masked without exchange; see :class:`~lightning_compress.latent.Projection`."""
        return False

    @property
    def splits(self) -> bool:
        """Whether layers become several others during the run; they do not by default."""
        return False

    def kept(self, name: str) -> Tensor | None:
        """True for each entry of a target that is not masked, None if none is; of methods that mask in place."""
        return None

    @property
    def alone(self) -> bool:
        """Whether no other method may project the targets of this one; methods of another order may by default."""
        return False

    @property
    def compresses_sums(self) -> bool:
        """Whether a target may be the sum of a weight and its adapters; it may by default."""
        return True

    @abstractmethod
    def check(self, target: Target) -> None:
        """Raise ValueError, naming the target and the fix, if this method cannot compress it."""

    @abstractmethod
    def describe(self) -> str:
        """A few words on the method for the printed plan: ``"90 % sparse by magnitude, global"``."""

    def ship_(self, module: nn.Module, example: Any) -> None:
        """Give a copy of the model, whatever its widths are, the layers that it ships with; nothing by default.

        Args:
            module: a copy in evaluation mode, with merged adapters.
            example: input of ``forward``, on its device.
        """
        return

    def detach_(self, module: nn.Module) -> None:
        """Take off a copy of the model all that :meth:`ship_` and training attach to it; nothing by default."""
        return

    @abstractmethod
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Compute masks, codebooks or grids for the present strength, from weights as earlier projections left them."""

    @abstractmethod
    def project_(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite each weight by its projection, in place."""

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        """Turn gradients at the projected weights into those of the latents, in place; the identity by default."""
        return

    def forget_(self, memories: Mapping[str, Tensor]) -> None:
        """Clear momentum of weights that get no gradient any more, after an update; nothing by default."""
        return

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """Read latents, and gradients at the projected weights, before an optimizer steps; nothing by default.

        The step may never come, after an exception or if a loss scaler skips it: state that a checkpoint holds changes
        in :meth:`stepped`.
        """
        return

    def stepped(self) -> None:
        """Take over the state that the last :meth:`observe` and :meth:`backward_` found; nothing by default."""
        return

    def advance(self, progress: float, *, due: bool, reached: float = 0.0) -> bool:
        """Take up the strength that the schedule gives, and say whether to update with it now.

        Args:
            progress: fraction of the run that is done.
            due: whether ``every_n_steps`` have passed since the last update.
            reached: least strength, that of a shorter run that is continued.
        """
        strength = self.strength_at(progress, reached)
        arrived = strength == 1.0 and self.strength < 1.0
        updates = strength > 0 and (arrived or ((due or self.postponed) and not self.settled))
        if updates:
            self.strength = strength
        return updates

    def strength_at(self, progress: float, reached: float) -> float:
        """The strength that is asked for at a point of the run; see :meth:`advance`."""
        return max(strength_at(self.schedule, progress), reached)

    def conclude(self) -> None:
        """Training is over: choose the weights to leave; a run that is resumed at its end calls it as well."""
        return

    def predict(self) -> str:
        """A plan is made, before any training: refuse what cannot come true; a note on the prediction."""
        return ""

    def falls_short(self) -> bool:
        """Whether the weights, as they are, call for an update that no schedule asks for; never by default.

        Asked before training pauses, to validate or to end, and when ``fit`` ends.
        """
        return False

    @property
    def outlives_later_projections(self) -> bool:
        """Whether later projections keep the promise of :meth:`verify`: they keep zeros, but not values or grids."""
        return False

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        """Raise RuntimeError, with numbers, if ``weights`` break the promise of this method.

        Called with the weights that this method is active for, at the present strength, as its projection left them;
        and after each later projection, if the promise outlives those. Every method of this package defines it.
        """
        return

    def metrics(self) -> dict[str, float]:
        """Numbers to log after an update, by name."""
        return {}

    def report(self) -> dict[str, object]:
        """Entries of this method in a report after ``fit``, by name."""
        weights = sum(target.parameter.numel() for target in self.targets.values())
        return {"method": self.describe(), "weights": weights, "strength": self.strength}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """State for a checkpoint: kind -> parameter name -> tensor of the shape of the parameter (or its shard)."""
        return {}

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore the state that :meth:`tensors` gave."""
        return

    def replace(self, parameters: Mapping[str, nn.Parameter | None], remove: Callable[[str, Tensor], Tensor]) -> None:
        """Continue with new parameters, and with state of their shape.

        Args:
            parameters: name -> new parameter, for those that were replaced; None for one that is gone.
            remove: name, tensor of the shape of the old parameter -> its part for the new one.
        """
        state = self.tensors()
        now = {name: parameters.get(name, target.parameter) for name, target in self.targets.items()}
        self.targets = {
            name: replace(self.targets[name], parameter=parameter)
            for name, parameter in now.items()
            if parameter is not None
        }
        left = {kind: {name: t for name, t in named.items() if name in self.targets} for kind, named in state.items()}
        self.load_tensors(map_tensors(left, lambda name, t: remove(name, t) if name in parameters else t))


def map_tensors(
    tensors: Mapping[str, Mapping[str, Tensor]], function: Callable[[str, Tensor], Tensor]
) -> dict[str, dict[str, Tensor]]:
    """Apply ``function`` to every tensor; kind -> parameter name -> tensor."""
    return {kind: {name: function(name, tensor) for name, tensor in named.items()} for kind, named in tensors.items()}


def names_of(methods: Iterable[object]) -> str:
    """The classes of methods in words, each once; empty for none.

    >>> names_of([1, 2.0, 3])
    'int and float'
    """
    return " and ".join(dict.fromkeys(type(method).__name__ for method in methods))
