"""Budgets: the fraction of a model's MACs, parameters, latency or channels to keep."""

from __future__ import annotations

from dataclasses import dataclass

from lightning_compress.arguments import check_fraction

__all__ = ["Budget", "budget_of", "check_blocks", "check_shards"]


@dataclass(frozen=True)
class Budget:
    """One number that the model in the Trainer has to meet.

    Attributes:
        name: ``"macs"``, ``"parameters"``, ``"latency"`` or ``"channels"`` (of every group alike).
        amount: fraction of it to keep, in (0, 1).
    """

    name: str
    amount: float

    @property
    def cost(self) -> str:
        """The name of the cost, in a sentence."""
        return {"macs": "MACs", "channels": "channels of every group"}.get(self.name, self.name)

    def __str__(self) -> str:
        return f"{self.amount:.4g} of the {self.cost} kept"


def budget_of(
    macs: float | None = None,
    parameters: float | None = None,
    latency: float | None = None,
    channels: float | None = None,
) -> Budget:
    """The one budget that is given; half of the MACs if none is.

    Raises:
        ValueError: several are given, or the one is not in (0, 1).
        TypeError: the one is not a number.

    >>> budget_of(parameters=0.25)
    Budget(name='parameters', amount=0.25)
    >>> budget_of(macs=0.5, channels=0.5)
    Traceback (most recent call last):
    ValueError: need one of macs, parameters, latency and channels, got macs=0.5 and channels=0.5
    """
    amounts = {"macs": macs, "parameters": parameters, "latency": latency, "channels": channels}
    given = [Budget(name, amount) for name, amount in amounts.items() if amount is not None]
    if not given:
        return Budget("macs", 0.5)
    if len(given) > 1:
        found = " and ".join(f"{budget.name}={budget.amount}" for budget in given)
        raise ValueError(f"need one of macs, parameters, latency and channels, got {found}")
    check_fraction(**{given[0].name: given[0].amount})
    return given[0]


def check_blocks(budget: Budget, remove_blocks: bool) -> None:
    """Refuse to remove residual branches whole where every layer keeps the same fraction of its channels.

    Raises:
        ValueError: ``remove_blocks`` is True, and the budget is one of channels.
    """
    if remove_blocks and budget.name == "channels":
        raise ValueError(
            f"need macs, parameters or latency with remove_blocks=True, got channels={budget.amount}, which keeps the "
            "same fraction of every layer"
        )


def check_shards(budget: Budget, split: int) -> None:
    """Refuse a model that is sharded in a way in which a budget cannot be met.

    Args:
        budget: the budget.
        split: number of processes that one layer is split among.

    Raises:
        ValueError: layers are split, or the budget is one of latency.
    """
    if split > 1:
        raise ValueError(
            f"need ModelParallelStrategy(tensor_parallel_size=1) to prune channels, got {split}: layers that are "
            "split among processes cannot be traced"
        )
    if budget.name == "latency":
        raise ValueError(
            f"need macs, parameters or channels under ModelParallelStrategy, got latency={budget.amount}: a sharded "
            "model cannot be timed at other widths"
        )
