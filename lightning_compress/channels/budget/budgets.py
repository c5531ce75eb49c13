"""Budgets: how much of a model stays, of its MACs, its parameters, its latency or the channels of every group."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from lightning_compress.arguments import check_fraction
from lightning_compress.channels.groups import Dropped, total

__all__ = ["Budget", "Costs", "budget_of", "largest_share"]


@dataclass(frozen=True)
class Budget:
    """One number that the model in the Trainer has to meet.

    Attributes:
        name: ``"macs"``, ``"parameters"``, ``"latency"`` or ``"channels"`` (of every group alike).
        amount: fraction of it that is kept, in (0, 1).
    """

    name: str
    amount: float

    def __str__(self) -> str:
        whole = {"macs": "MACs", "channels": "channels of every group"}.get(self.name, self.name)
        return f"{self.amount:.4g} of the {whole} kept"


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


@dataclass(frozen=True)
class Costs:
    """What the parameters of a model cost, now and when it was dense.

    Attributes:
        sizes: parameter name -> shape.
        dense: the same before any channel was cut.
        prices: ``"macs"`` and ``"parameters"`` -> parameter name -> price of one element.
    """

    sizes: Mapping[str, Sequence[int]]
    dense: Mapping[str, Sequence[int]]
    prices: Mapping[str, Mapping[str, float]]

    def share(self, name: str, gone: Dropped | None = None, hollowed: Collection[str] = ()) -> float:
        """Share of the dense costs that is left without the entries ``gone`` and the parameters ``hollowed``."""
        sizes = {key: list(size) for key, size in self.sizes.items() if key not in hollowed}
        for key, dims in (gone or {}).items():
            for dim, positions in dims.items():
                if key in sizes:
                    sizes[key][dim] -= len(positions)
        return total(sizes, self.prices[name]) / self.total(name)

    def total(self, name: str) -> float:
        """What the dense model costs."""
        return total(self.dense, self.prices[name])


def largest_share(
    cost: Callable[[float], float], limit: float, least: float, most: float = 1.0, probes: int = 6
) -> float:
    """The largest share of a model, to within ``(most - least) / 2 ** probes``, that costs no more than ``limit``.

    Args:
        cost: share -> what it costs, measured; it should grow with the share.
        limit: what it may cost.
        least: the smallest share that there is; it is the answer where nothing above it is cheap enough.
        most: a share that costs too much.
        probes: how often ``cost`` is called.

    >>> largest_share(lambda share: share**2, limit=0.25, least=0.0)
    0.5
    """
    for _ in range(probes):
        share = (least + most) / 2
        if cost(share) <= limit:
            least = share
        else:
            most = share
    return least
