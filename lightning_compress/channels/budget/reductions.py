"""Reductions: a budget for one model, met by removing units of its groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_compress.channels.budget.budgets import Budget, Costs
from lightning_compress.channels.budget.selection import choose, choose_of_each, smallest
from lightning_compress.channels.groups import Group

__all__ = ["Reduction"]


@dataclass(frozen=True, eq=False)
class Reduction:
    """What has to go from a model, and what may.

    Attributes:
        budget: what was asked for.
        share: what of it stays, in (0, 1]: of the parameters, of the channels for a ratio, else of the MACs.
        groups: what can be removed.
        costs: what the model costs, now and when it was dense.
        round_to: channels of a layer stay in multiples of this number.
    """

    budget: Budget
    share: float
    groups: tuple[Group, ...]
    costs: Costs
    round_to: int

    @property
    def priced(self) -> str:
        """What the budget is counted in: ``"parameters"`` or ``"macs"``."""
        return "parameters" if self.budget.name == "parameters" else "macs"

    @property
    def is_met(self) -> bool:
        """Whether nothing is left to remove, because an earlier run has."""
        if self.budget.name == "ratio":
            return self.costs.share("parameters") < 1 and not self._narrows
        return self.costs.share(self.priced) <= self.share

    @property
    def _narrows(self) -> bool:
        """Whether any channel goes, whatever the scores are."""
        alike = {group.name: torch.ones(group.units) for group in self.groups}
        return any(bool(removed.any()) for removed in self.choose(alike, 1.0).values())

    def choose(self, scores: Mapping[str, Tensor], strength: float) -> dict[str, Tensor]:
        """Choose the units that go when ``strength``, in [0, 1], of the reduction is done.

        Args:
            scores: group name -> ``(units,)`` importance, not negative.
            strength: 0 removes nothing, 1 meets the budget.

        Returns:
            group name -> ``(units,)`` bool, True where a unit is removed.
        """
        share = 1 - (1 - self.share) * strength
        if self.budget.name == "ratio":
            dense = {group.name: self._dense_units(group) for group in self.groups}
            return choose_of_each(self.groups, scores, dense, 1 - share, self.round_to)
        prices, limit = self.costs.prices[self.priced], share * self.costs.total(self.priced)
        return choose(self.groups, scores, self.costs.sizes, prices, limit, self.round_to)

    def check_reach(self, left_alone: Mapping[str, str]) -> None:
        """Raise ValueError if the groups cannot give what is asked.

        Args:
            left_alone: layer name -> why its channels stay, for the message.
        """
        if self.budget.name == "ratio":
            reached = self._narrows
            asked = f"need a larger ratio for this model with round_to={self.round_to}, got ratio={self.budget.amount}"
        else:
            prices, dense = self.costs.prices[self.priced], self.costs.total(self.priced)
            least = smallest(self.groups, self.costs.sizes, prices, self.round_to) / dense
            reached = least <= self.share
            asked = (
                f"need {self.priced} >= {least:.3f} for this model with round_to={self.round_to}, "
                f"got {self.priced}={self.share}"
            )
        if not reached:
            raise ValueError(
                f"{asked}: {'or' if self.budget.name == 'ratio' else 'ask for less, or'} lower round_to; left alone: "
                + ("; ".join(f"{name} ({reason})" for name, reason in left_alone.items()) or "nothing")
            )

    def _dense_units(self, group: Group) -> float:
        """How many units a group had before any was cut."""
        part = next(part for part in group.slices if part.role == "out")
        return group.units * self.costs.dense[part.name][part.dim] / self.costs.sizes[part.name][part.dim]
