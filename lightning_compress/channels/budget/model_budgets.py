"""Model budgets: the budget of one model, met by removal of units of its groups."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lightning_compress.channels.budget.budgets import Budget
from lightning_compress.channels.budget.costs import Costs
from lightning_compress.channels.budget.selection import (
    choose_evenly,
    choose_units,
    largest_kept_fraction,
    lowest_cost,
)
from lightning_compress.channels.criteria import magnitude, members
from lightning_compress.channels.groups import Group
from lightning_compress.channels.masks import Masks
from lightning_compress.channels.removal.surgery import narrowed_copy
from lightning_compress.messages import listed_by_reason

__all__ = ["ModelBudget"]


@dataclass(frozen=True, eq=False)
class ModelBudget:
    """A budget, the costs of a model, and the groups whose units may be removed to meet it.

    Attributes:
        budget: the asked budget.
        fraction: fraction to keep, in (0, 1]: of the parameters, of the channels of each group, else of the MACs.
        groups: the groups.
        costs: costs of the model, now and when it was dense.
        round_to: every layer keeps a multiple of this number of channels.
    """

    budget: Budget
    fraction: float
    groups: tuple[Group, ...]
    costs: Costs
    round_to: int

    def __str__(self) -> str:
        found = f" ({self.fraction:.4g} of the MACs)" if self.budget.name == "latency" else ""
        return f"{self.budget}{found}"

    @property
    def unit_of_cost(self) -> str:
        """The unit of the budget: ``"parameters"`` or ``"macs"``."""
        return "parameters" if self.budget.name == "parameters" else "macs"

    @property
    def is_met(self) -> bool:
        """Whether nothing is left to remove, because an earlier run has removed it."""
        if self.budget.name == "channels":
            return self.costs.fraction("parameters") < 1 and not any(self._evenly_removed(1.0).values())
        return self.costs.fraction(self.unit_of_cost) <= self.fraction

    def left(self, masks: Masks, name: str) -> float:
        """The fraction of ``"macs"`` or ``"parameters"`` of the dense model that is left without the masked units."""
        return self.costs.fraction(name, masks.entries, masks.branch_parameters)

    def choose(self, scores: Mapping[str, Tensor], strength: float) -> dict[str, Tensor]:
        """Choose the units to remove.

        Args:
            scores: group name -> ``(units,)`` importance, not negative.
            strength: in [0, 1]; 0 removes nothing, 1 meets the budget.

        Returns:
            group name -> ``(units,)`` bool, True where a unit is removed.
        """
        fraction = self._fraction_at(strength)
        if self.budget.name == "channels":
            return choose_evenly(self.groups, scores, self._dense_units, fraction, self.round_to)
        prices, limit = self.costs.prices[self.unit_of_cost], fraction * self.costs.total(self.unit_of_cost)
        return choose_units(self.groups, scores, self.costs.sizes, prices, limit, self.round_to)

    def narrowed_copy(self, module: nn.Module) -> nn.Module:
        """A copy of ``module``, whose groups these are, without the units of least magnitude: the budget is met."""
        weights = {name: parameter.detach() for name, parameter in module.named_parameters()}
        scores = {group.name: magnitude(members(group, weights, {})) for group in self.groups}
        return narrowed_copy(module, self.groups, self.choose(scores, 1.0))

    def check_reach(self, left_alone: Mapping[str, str], remove_blocks: bool) -> None:
        """Refuse a budget that the groups cannot meet.

        Args:
            left_alone: layer name -> reason why its channels stay, for the message.
            remove_blocks: whether residual branches may go already, for the message.

        Raises:
            ValueError: the budget is out of reach.
        """
        kind = "channels" if self.budget.name == "channels" else self.unit_of_cost
        edge = self.edge(kind)
        if self.fraction <= edge if kind == "channels" else edge <= self.fraction:
            return
        blocks = "" if remove_blocks or kind == "channels" else ", or set remove_blocks=True of ChannelPruningCallback"
        need, fix = self._way_out(kind, edge, blocks)
        layers = "; ".join(listed_by_reason(left_alone)) or "nothing"
        raise ValueError(f"need {need}, got {kind}={self.fraction}: {fix}; left alone: {layers}")

    def edge(self, kind: str) -> float:
        """The largest fraction of the channels, or the least of the MACs or parameters, that a budget can ask for."""
        if kind == "channels":
            return largest_kept_fraction(self.groups, self._dense_units, self.round_to)
        dense = self.costs.total(kind)
        return (
            lowest_cost(self.groups, self.costs.sizes, self.costs.prices[kind], self.round_to) / dense if dense else 1.0
        )

    def _way_out(self, kind: str, edge: float, blocks: str) -> tuple[str, str]:
        """The need that a budget out of reach does not meet, and the way out."""
        steps = f"with round_to={self.round_to}"
        least, most = math.ceil(1000 * edge - 1e-6) / 1000, math.floor(1000 * edge + 1e-6) / 1000  # as they are shown
        if not self.groups or (self.round_to == 1 and least >= 1 and not blocks):
            return (
                "channels that can go",
                "no layer has any, so compress its weights, by PruningCallback or QATCallback",
            )
        if (most <= 0) if kind == "channels" else (least >= 1):
            return f"layers that can lose channels {steps}", f"lower round_to{blocks}"
        if kind == "channels":
            return f"channels <= {most:.3f} for this model {steps}", "lower channels to remove more, or lower round_to"
        return f"{kind} >= {least:.3f} for this model {steps}", f"raise {kind} to remove less, lower round_to{blocks}"

    def verify(self, masks: Masks, strength: float) -> None:
        """Check that masked units meet the budget.

        Args:
            masks: the masked units.
            strength: fraction of the reduction that should be reached.

        Raises:
            RuntimeError: they do not.
        """
        if self.budget.name == "channels":
            for name, asked in self._evenly_removed(strength).items():
                found = int(masks.units[name].sum()) if name in masks.units else 0
                if found != asked:
                    raise RuntimeError(f"need {asked} masked units of {name!r}, got {found}")
            return
        asked_fraction = self._fraction_at(strength)
        left = self.left(masks, self.unit_of_cost)
        if left > asked_fraction * (1 + 1e-9):
            raise RuntimeError(f"need {self.unit_of_cost} <= {asked_fraction:.6g} of the dense model, got {left:.6g}")

    def _fraction_at(self, strength: float) -> float:
        return 1 - (1 - self.fraction) * strength

    def _evenly_removed(self, strength: float) -> dict[str, int]:
        """Group name -> number of units that a budget of channels removes, whatever their scores."""
        equal = {group.name: torch.ones(group.units) for group in self.groups}
        return {name: int(units.sum()) for name, units in self.choose(equal, strength).items()}

    @property
    def _dense_units(self) -> dict[str, float]:
        """Group name -> number of units that the group had before any was removed."""
        found = {}
        for group in self.groups:
            part = next(part for part in group.slices if part.role == "out")
            dense, now = self.costs.dense[part.name][part.dim], self.costs.sizes[part.name][part.dim]
            found[group.name] = group.units * dense / now
        return found
