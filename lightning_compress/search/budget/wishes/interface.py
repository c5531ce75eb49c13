"""The interface of the wishes for a file: when zeros and values are chosen, and for how many bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from lightning_compress.schedules import Cubic, Linear
from lightning_compress.search.budget.choice.choices import Choice
from lightning_compress.training.run import CompressionRun

__all__ = ["AnySize", "Wish"]


class Wish(ABC):
    """A wish for the file of a model, which fills in a :class:`~..choice.choices.Choice` while a ``fit`` runs.

    The callback calls it, and passes the choice. A new wish serves each ``fit``. Methods return texts to tell the user;
    empty ones for nothing.
    """

    schedule: ClassVar[Linear | Cubic]
    """The schedule of a budget that is given none."""

    chooses: ClassVar[bool] = True
    """Whether weights are compressed, and the file is measured."""

    alone: ClassVar[bool] = False
    """Whether no other weight method may be in the run."""

    compares: ClassVar[bool] = False
    """Whether a metric of each validation is compared."""

    holds: bool = True
    """Whether the model of now is one that this wish would leave."""

    @abstractmethod
    def describe(self) -> str:
        """The wish in words, for the printed plan."""

    def check(self, module: nn.Module) -> None:
        """Refuse a model that comes into ``fit``, and is compared with."""
        return

    def predict(self, choice: Choice) -> str:
        """Refuse a wish that ``fit`` would refuse, in a plan before training; the note on the plan."""
        return ""

    def start(
        self, choice: Choice, expected: Choice, run: CompressionRun | None, incoming: Mapping[str, Tensor] | None
    ) -> str:
        """Training starts, and no checkpoint is resumed: refuse a wish that cannot come true.

        Args:
            choice: the choice.
            expected: the same for the model as it will be without the channels that another wish removes.
            run: the run, if there is one.
            incoming: metrics of the model as it came in; None if it was not validated.
        """
        return ""

    def strengthen(self, choice: Choice, strength: float) -> None:
        """Give zeros and values the strengths that they have at a strength of the whole."""
        return

    def strength_at(self, scheduled: float, reached: float) -> float:
        """The strength to take up; arguments as in :meth:`~lightning_compress.training.method.Method.strength_at`."""
        return max(scheduled, reached)

    def is_due(self, choice: Choice, due: bool) -> bool:
        """Whether to update now; ``due`` if ``every_n_steps`` have passed."""
        return due

    def reads(self, choice: Choice) -> bool:
        """Whether the gradients of a step count for choices to come."""
        return False

    def update(self, choice: Choice, weights: Mapping[str, Tensor], strength: float) -> str:
        """Choose what is due, and compute masks and codebooks for the present strength; a new choice as text."""
        return ""

    def falls_short(self, choice: Choice) -> bool:
        """Whether the file, at full strength, calls for an update that no schedule asks for."""
        return False

    def narrowed(self) -> None:
        """Channels were removed: the file is smaller now."""
        return

    def validated(self, choice: Choice, run: CompressionRun, metrics: Mapping[str, Tensor], *, over: bool) -> None:
        """Judge the model by the metrics of a validation.

        Args:
            choice: the choice.
            run: the run.
            metrics: name -> metric.
            over: whether the schedule has ended.
        """
        return

    def ends(self, choice: Choice, run: CompressionRun) -> bool:
        """The run ends: settle on a model; whether the wish is done whatever the schedule says."""
        return False

    def result(self, choice: Choice) -> str:
        """The size that was reached, as text."""
        return ""

    def missed(self, choice: Choice) -> str:
        """By how much the wish was missed, and the way out, as text; empty if it came true."""
        return ""

    def state_dict(self) -> dict[str, Any]:
        """The state that changes in a run, as plain values and tensors."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` gave."""
        return


class AnySize(Wish):
    """No wish for the file: its weights stay floats, and channels alone are removed."""

    schedule = Cubic(0.15, 0.7)
    chooses = False

    def describe(self) -> str:
        return ""
