"""Company: the other callbacks in the Trainer of a budget, some of which it cannot work beside."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lightning_compress.channels import ChannelPruningCallback
from lightning_compress.messages import listed
from lightning_compress.search.budget.wishes.interface import Wish
from lightning_compress.training import WeightCompression
from lightning_compress.training.interplay.averages import averaging_in

__all__ = ["check_cuts", "check_methods", "check_trainer"]


def check_trainer(wish: Wish, trainer: Any) -> None:
    """Refuse a Trainer without validation, and averages of weights, where the metric of each validation counts.

    Raises:
        ValueError: there is no validation, or a callback averages weights.
    """
    if not wish.compares:
        return
    if not trainer.enable_validation:
        raise ValueError(
            "need a validation of each size that max_drop= tries, got none: pass val_dataloaders to fit and define "
            "validation_step"
        )
    for callback in averaging_in(trainer.callbacks):
        raise ValueError(
            f"need a model that is validated as it is kept, got {type(callback).__name__} beside max_drop=, "
            "which validates or leaves an average: leave one of the two out"
        )


def check_cuts(own: Iterable[WeightCompression], callbacks: Iterable[object]) -> None:
    """Refuse another callback that removes channels, beside the one that the budget brings.

    Args:
        own: the callbacks that the budget brings.
        callbacks: those of the Trainer.

    Raises:
        ValueError: there is another one.
    """
    own = list(own)
    for callback in callbacks if own else ():
        if isinstance(callback, ChannelPruningCallback) and callback not in own:
            raise ValueError(
                f"need one callback that removes channels, got {callback!r} beside CompressionBudget with macs= or "
                "latency=: leave that wish out, or the other callback"
            )


def check_methods(budget: WeightCompression, wish: Wish, methods: Iterable[WeightCompression]) -> None:
    """Refuse methods that a budget cannot measure, or cannot take back to the last good model.

    Args:
        budget: the budget.
        wish: its wish for the file.
        methods: all methods of the run.

    Raises:
        ValueError: there is such a method.
    """
    for method in (method for method in methods if method is not budget):
        if wish.alone:
            raise ValueError(
                f"need CompressionBudget(max_drop=...) as the only weight method, got {type(method).__name__} too: "
                "leave it out, or ask for bytes="
            )
        if method.order > budget.order and (names := [name for name in budget.targets if name in method.targets]):
            raise ValueError(
                f"need the shared values of CompressionBudget in the file, got {type(method).__name__}, which "
                f"changes them, on {listed(names)}: name them in exclude of one of the two"
            )
