"""Size: the wish for a file of at most so many bytes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from lightning_compress.schedules import Cubic
from lightning_compress.search.budget.choice.choices import AIMED, Choice
from lightning_compress.search.budget.choice.estimates import LARGEST

__all__ = ["Size"]

_PRUNED = 0.75  # strength at which the zeros are complete, and sharing begins
_LEAST, _MOST = 0.96, 0.995  # fractions of the budget between which the file is left as it is


class Size:
    """Chooses zeros when the schedule begins, values when the zeros are complete, and fits the file at its end.

    Args:
        most: bytes of the file.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.fitted = False
        """Whether the file was fitted to the budget."""

    def check(self, choice: Choice) -> str:
        """Refuse a budget that the model cannot meet, or that it meets as it is; nothing to tell."""
        fixed = choice.fixed()
        dense, least = fixed + choice.floats(), fixed + choice.least()
        if self.most >= dense:
            raise ValueError(
                f"need bytes below the {dense:,} that this model takes without compression, got bytes={self.most:,}: "
                "leave CompressionBudget out, or ask for less"
            )
        if self.most < least:
            raise ValueError(
                f"need bytes >= {least:,.0f} for this model, got bytes={self.most:,}: {fixed:,} bytes are what is "
                f"not compressed here, such as biases, and the rest is what {LARGEST:.0%} zeros leave; ask for more"
            )
        return ""

    def strengthen(self, choice: Choice, strength: float) -> None:
        """Give zeros and values the strengths that they have at this point of the schedule: one after the other."""
        pruned, shared = min(1.0, strength / _PRUNED), max(0.0, (strength - _PRUNED) / (1 - _PRUNED))
        choice.composition.strengthen(Cubic(0.0, 1.0)(pruned), shared)

    def update(self, choice: Choice, weights: Mapping[str, Tensor], strength: float) -> str:
        """Choose what is due, and compute masks and codebooks for the present strength; a new choice as text."""
        told = ""
        self.strengthen(choice, strength)
        if choice.zeros is None:
            choice.choose_zeros(weights, AIMED * self.most - choice.fixed())
        if strength >= _PRUNED and not choice.values:
            table = choice.choose_values(weights, AIMED * self.most - choice.fixed())
            told = f"CompressionBudget chose for {self.most:,} bytes:\n{table}"
        choice.composition.update(weights)
        if strength == 1.0:
            least, most = (0.0, 1.0) if self.fitted else (_LEAST, _MOST)  # later only upwards
            choice.fit_zeros(weights, least * self.most, most * self.most, AIMED * self.most)
            self.fitted = True
        return told

    def result(self, choice: Choice, size: int) -> str:
        """The size of the file, as text."""
        return f"CompressionBudget: the file takes {size:,} of {self.most:,} bytes"

    def missed(self, choice: Choice, size: int) -> str:
        """By how much the file misses the wish, as text; empty if it fits."""
        if size <= self.most:
            return ""
        return (
            f"CompressionBudget missed bytes={self.most:,} by {size - self.most:,}: the file takes {size:,} bytes "
            f"with {choice.zeros or 0.0:.1%} zeros; ask for more bytes, or let it compress more parameters"
        )

    def state_dict(self) -> dict[str, Any]:
        """The state that changes in a run."""
        return {"fitted": self.fitted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state that :meth:`state_dict` gave."""
        self.fitted = state["fitted"]
