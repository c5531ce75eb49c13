"""Plans: the refusal of methods that cannot work together, and the text that announces each method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lightning_compress.targets import Selection

if TYPE_CHECKING:
    from lightning_compress.training.callback import WeightCompression

__all__ = ["check_conflicts", "check_objects", "check_orders", "listed", "plan_text"]


def check_objects(callbacks: Sequence[object]) -> None:
    """Refuse a class in the Trainer's list of callbacks.

    Raises:
        TypeError: a callback is a class.
    """
    for callback in callbacks:
        if isinstance(callback, type):
            name = callback.__name__
            raise TypeError(f"need callbacks as objects, got the class {name} in the Trainer's list: write {name}(...)")


def check_orders(methods: Sequence[WeightCompression]) -> None:
    """Refuse a method without a place in the order of projection.

    Raises:
        TypeError: the order is not an integer, or the method has not called ``super().__init__``.
    """
    for method in methods:
        order = getattr(method, "_order", None)
        if type(order) is not int:
            raise TypeError(
                f"need the order of projection of {type(method).__name__} as an integer, got {order!r}: call "
                "super().__init__(order=PRUNE, ...) with PRUNE, SHARE or QUANTIZE of lightning_compress.training, or "
                "an integer between two of them"
            )


def check_conflicts(methods: Sequence[WeightCompression]) -> None:
    """Refuse two methods that cannot project the same weight.

    Raises:
        ValueError: two methods of the same order have a common target, or a method that must be alone has one.
    """
    for method in (method for method in methods if method.alone):
        for other in (other for other in methods if other.order != method.order):
            if names := [name for name in method.targets if name in other.targets]:
                raise ValueError(
                    f"need {type(method).__name__} alone on a weight, got {type(other).__name__} too on "
                    f"{listed(names)}: name them in exclude of one of the two, or fit a second time with "
                    f"{type(other).__name__}"
                )
    owners: dict[tuple[int, str], WeightCompression] = {}
    for method in methods:
        for name in method.targets:
            other = owners.setdefault((method.order, name), method)
            if other is not method:
                raise ValueError(
                    "need callbacks with different places in the order of projection on one weight, got "
                    f"{type(other).__name__} and {type(method).__name__} both on {name!r}, which have the same: make "
                    "their include and exclude patterns disjoint"
                )


def plan_text(method: WeightCompression, selection: Selection) -> str:
    """The targets of a method, and the parameters that it leaves alone with the reason for each."""
    weights = sum(target.parameter.numel() for target in selection)
    reasons: dict[str, list[str]] = {}
    for name, reason in selection.skipped.items():
        reasons.setdefault(reason, []).append(name)
    lines = [
        f"{type(method).__name__}: {method.describe()}",
        f"  {weights:,} weights in {len(selection)} tensors: {listed([target.name for target in selection])}",
        *(f"  left alone, {reason}: {listed(names)}" for reason, names in reasons.items()),
    ]
    return "\n".join(lines)


def listed(names: Sequence[str], most: int = 8) -> str:
    """The first names, and the number of further ones.

    >>> listed(["a", "b", "c"], most=2)
    'a, b and 1 more'
    """
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
