"""Size: the wish for a file of at most so many bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lightning_compress.arguments import check_count
from lightning_compress.messages import listed
from lightning_compress.schedules import Cubic, Linear
from lightning_compress.search.budget.choice.choices import AIMED, Choice
from lightning_compress.search.budget.choice.estimates import LARGEST
from lightning_compress.search.budget.wishes.interface import Wish
from lightning_compress.training.run import CompressionRun

__all__ = ["Size"]

_NAMED = 3  # tensors in a message
_PRUNED = 0.75  # strength at which the zeros are complete, and sharing begins
_LEAST, _MOST = 0.96, 0.995  # fractions of the budget between which the file is left as it is


class Size(Wish):
    """Chooses zeros when the schedule begins, values when the zeros are complete, and fits the file at its end.

    Args:
        most: bytes of the file.
        narrows: whether channels are removed as well, which may suffice.

    Raises:
        TypeError: ``most`` is no integer.
        ValueError: it is below 1.
    """

    schedule = Linear(0.15, 0.85)

    def __init__(self, most: int, *, narrows: bool = False) -> None:
        check_count(bytes=most)
        self.most = most
        self.narrows = narrows
        self.fitted = False
        """Whether the file was fitted to the budget."""

    def describe(self) -> str:
        return f"a file of at most {self.most:,} bytes, by zeros and shared values"

    def predict(self, choice: Choice) -> str:
        self._check(choice)
        return (
            "nothing is chosen yet: training chooses the zeros when the schedule begins, and the values at "
            f"{_PRUNED:.0%} of its strength, by gradients; those shown are the choice for the present weights, as if "
            "all of them mattered alike"
        )

    def start(
        self, choice: Choice, expected: Choice, run: CompressionRun | None, incoming: Mapping[str, Tensor] | None
    ) -> str:
        self._check(expected)
        return ""

    def _check(self, choice: Choice) -> None:
        """Refuse a budget that the model cannot meet, or that it meets as it is."""
        fixed = choice.fixed()
        dense, least = fixed + choice.floats(), fixed + choice.least()
        if self.most >= dense and not self.narrows:
            raise ValueError(
                f"need bytes below the {dense:,} that this model takes without compression, got bytes={self.most:,}: "
                "leave CompressionBudget out, or ask for less"
            )
        if self.most < least:
            raise ValueError(
                f"need bytes >= {least:,.0f} for this model, got bytes={self.most:,}: {fixed:,} bytes are what is not "
                f"compressed here{_largest(choice.others())}, and the rest is what {LARGEST:.0%} zeros leave; ask for "
                "more, or let CompressionBudget compress more of them, by include and exclude"
            )

    def strengthen(self, choice: Choice, strength: float) -> None:
        # First the zeros, then the values.
        pruned, shared = min(1.0, strength / _PRUNED), max(0.0, (strength - _PRUNED) / (1 - _PRUNED))
        choice.composition.strengthen(Cubic(0.0, 1.0)(pruned), shared)

    def reads(self, choice: Choice) -> bool:
        return not choice.values

    def update(self, choice: Choice, weights: Mapping[str, Tensor], strength: float) -> str:
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

    def falls_short(self, choice: Choice) -> bool:
        return choice.measure() > self.most or not self.fitted

    def narrowed(self) -> None:
        self.fitted = False  # a model with fewer channels takes fewer bytes: it may keep more of its weights

    def result(self, choice: Choice) -> str:
        return f"CompressionBudget: the file takes {choice.measured:,} of {self.most:,} bytes"

    def missed(self, choice: Choice) -> str:
        size = choice.measured
        if size <= self.most:
            return ""
        return (
            f"CompressionBudget missed bytes={self.most:,} by {size - self.most:,}: the file takes {size:,} bytes "
            f"with {choice.zeros or 0.0:.1%} zeros; ask for more bytes, for fewer MACs with "
            "macs=, or let it compress more parameters"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"fitted": self.fitted}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.fitted = state["fitted"]


def _largest(names: Sequence[str]) -> str:
    """The first of the tensors that are not compressed.

    >>> _largest(["fc2.weight", "fc1.bias", "fc2.bias", "norm.weight"])
    ', fc2.weight, fc1.bias, fc2.bias and 1 more'
    """
    rest = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f", {listed(names[:_NAMED])}{rest}" if names else ""
