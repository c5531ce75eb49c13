"""Reductions: a budget for one model, met by removing units of its groups."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from lightning_compress.channels.budget.budgets import Budget, Costs
from lightning_compress.channels.budget.selection import choose, choose_of_each, most_kept, smallest
from lightning_compress.channels.groups import Group

__all__ = ["Reduction"]


@dataclass(frozen=True, eq=False)
class Reduction:
    """What has to go from a model, and what may.

    Attributes:
        budget: what was asked for.
        share: what of it stays, in (0, 1]: of the parameters, of the channels of each group, else of the MACs.
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
        if self.budget.name == "channels":
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
        if self.budget.name == "channels":
            return choose_of_each(self.groups, scores, self._dense, share, self.round_to)
        prices, limit = self.costs.prices[self.priced], share * self.costs.total(self.priced)
        return choose(self.groups, scores, self.costs.sizes, prices, limit, self.round_to)

    def check_reach(self, left_alone: Mapping[str, str]) -> None:
        """Raise ValueError if the groups cannot give what is asked.

        Args:
            left_alone: layer name -> why its channels stay, for the message.
        """
        name, given = self.priced, self.share
        if self.budget.name == "channels":
            most = most_kept(self.groups, self._dense, self.round_to)
            reached = given <= most
            need, fix = f"channels <= {most:.3f}", "lower channels to remove more, or lower round_to"
            name = "channels"
        else:
            prices, dense = self.costs.prices[name], self.costs.total(name)
            least = smallest(self.groups, self.costs.sizes, prices, self.round_to) / dense
            reached = least <= given
            need, fix = f"{name} >= {least:.3f}", f"raise {name} to remove less, or lower round_to"
        if not reached:
            layers = "; ".join(f"{layer} ({reason})" for layer, reason in left_alone.items()) or "nothing"
            raise ValueError(
                f"need {need} for this model with round_to={self.round_to}, got {name}={given}: {fix}; "
                f"left alone: {layers}"
            )

    @property
    def _dense(self) -> dict[str, float]:
        """Group name -> how many units the group had before any was removed."""
        found = {}
        for group in self.groups:
            part = next(part for part in group.slices if part.role == "out")
            dense, now = self.costs.dense[part.name][part.dim], self.costs.sizes[part.name][part.dim]
            found[group.name] = group.units * dense / now
        return found
