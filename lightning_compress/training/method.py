"""What a weight method is, the Trainer apart: a projection, the state behind it, and a schedule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from lightning_compress.arguments import check_code
from lightning_compress.schedules import Schedule
from lightning_compress.targets import Selection, Target, select

__all__ = ["PRUNE", "QUANTIZE", "SHARE", "Method"]

PRUNE, SHARE, QUANTIZE = 0, 1, 2
"""The order of projection: ``quantize(share(prune(latent)))``, whatever the order of the callbacks."""


class Method(ABC):
    """A method that compresses weights: the questions that a run asks it.

    A method is a :class:`~lightning_compress.latent.Projection`: it gives a projection (:meth:`project_`), the state
    that it depends on (:meth:`update`), and, where it is not the identity, the way of the gradient (:meth:`backward_`).

    Args:
        schedule: progress of the run -> strength; must end at 1.
        every_n_steps: optimizer steps between two calls of :meth:`update`.
        include: patterns of the parameters to compress; see :func:`~lightning_compress.targets.select`.
        exclude: patterns of those to leave alone.

    Raises:
        ValueError: the schedule leaves [0, 1] or does not end at 1, or ``every_n_steps`` is below 1.
        TypeError: ``include`` or ``exclude`` is one string, or ``schedule`` a name or a number.
    """

    rank: ClassVar[int]
    """``PRUNE``, ``SHARE`` or ``QUANTIZE``. Two methods of one rank exclude each other on a weight."""

    def __init__(self, schedule: Schedule, every_n_steps: int, include: Sequence[str], exclude: Sequence[str]) -> None:
        check_code(schedule=schedule)
        _check_schedule(schedule)
        if every_n_steps < 1:
            raise ValueError(f"need every_n_steps >= 1, got every_n_steps={every_n_steps}")
        for argument, patterns in (("include", include), ("exclude", exclude)):
            if isinstance(patterns, str):
                raise TypeError(f"need {argument} as a sequence of patterns, got {patterns!r}: write ({patterns!r},)")
        self.schedule = schedule
        self.every_n_steps = every_n_steps
        self.include = tuple(include)
        self.exclude = tuple(exclude)
        self.begin(Selection((), {}))

    def select(self, module: nn.Module) -> Selection:
        """Choose the parameters of ``module`` to compress: by default the weights that the patterns leave."""
        return select(module, self.include, self.exclude)

    def begin(self, selection: Selection) -> None:
        """Start afresh on the selected targets, as if no step had been taken."""
        self.targets: Mapping[str, Target] = {target.name: target for target in selection}
        """Name -> target, of the parameters that this method compresses; empty before ``fit``."""
        self.strength = 0.0
        """How much of what was asked is done, in [0, 1]: the schedule's value at the last update."""

    def end(self) -> None:
        """The run is over, well or not: take off whatever was attached to the model; nothing by default."""
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
    def still(self) -> bool:
        """Whether the projection is a mask behind which latents stand still; see :class:`~.latent.Projection`."""
        return False

    @abstractmethod
    def check(self, target: Target) -> None:
        """Raise ValueError, naming the target and the fix, if this method cannot compress it."""

    @abstractmethod
    def describe(self) -> str:
        """What will be done, in a few words for the printed plan: ``"90 % sparse by magnitude, global"``."""

    @abstractmethod
    def update(self, weights: Mapping[str, Tensor]) -> None:
        """Renew what the projection depends on, for the present strength; see :class:`~.latent.Projection`."""

    @abstractmethod
    def project_(self, weights: Mapping[str, Tensor]) -> None:
        """Overwrite each weight by its projection; see :class:`~.latent.Projection`."""

    def backward_(self, gradients: Mapping[str, Tensor], latents: Mapping[str, Tensor]) -> None:
        """Turn gradients at the projected weights into those of the latents, in place; the identity by default."""
        return

    def forget_(self, memories: Mapping[str, Tensor]) -> None:
        """Clear what an optimizer remembers of weights that no gradient reaches any more; nothing by default.

        Called after an update with every tensor of its state that has the shape of a weight (or of its shard).
        """
        return

    def observe(self, latents: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """See latents and gradients (at the projected weights) before an optimizer steps; nothing by default."""
        return

    def verify(self, weights: Mapping[str, Tensor]) -> None:
        """Raise RuntimeError, with numbers, if ``weights`` do not keep what this method promises; nothing by default.

        They are the parameters that it is active for, as this projection left them, at the present strength.
        """
        return

    def metrics(self) -> dict[str, float]:
        """Numbers to log after an update, by name."""
        return {}

    def report(self) -> dict[str, object]:
        """What a report says of this method after ``fit``, by name."""
        weights = sum(target.parameter.numel() for target in self.targets.values())
        return {"method": self.describe(), "weights": weights, "strength": self.strength}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """State for a checkpoint: kind -> parameter name -> tensor of the shape of the parameter (or its shard)."""
        return {}

    def load_tensors(self, tensors: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Take back what :meth:`tensors` gave."""
        return

    def replace(self, parameters: Mapping[str, nn.Parameter | None], narrow: Callable[[str, Tensor], Tensor]) -> None:
        """Channels have been cut out of parameters: go on with the new ones, and with state of their shape.

        Args:
            parameters: name -> new parameter, for those that were replaced; None for one that is gone.
            narrow: name, tensor of the shape of the old parameter -> the same for the new one.
        """
        state = self.tensors()
        now = {name: parameters.get(name, target.parameter) for name, target in self.targets.items()}
        self.targets = {
            name: replace(self.targets[name], parameter=parameter)
            for name, parameter in now.items()
            if parameter is not None
        }
        self.load_tensors(
            {
                kind: {
                    name: narrow(name, t) if name in parameters else t
                    for name, t in named.items()
                    if name in self.targets
                }
                for kind, named in state.items()
            }
        )


def _check_schedule(schedule: Schedule) -> None:
    strengths = [schedule(k / 100) for k in range(101)]
    if not all(0 <= strength <= 1 for strength in strengths) or strengths[-1] != 1:
        raise ValueError(f"need a schedule with strengths in [0, 1] that ends at 1, got schedule={schedule}")
