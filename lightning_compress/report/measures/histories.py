"""Histories: metrics and strengths of the methods at every validation of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_compress.report.methods import names_of

__all__ = ["Moment", "moment"]


@dataclass(frozen=True)
class Moment:
    """One validation.

    Attributes:
        step: optimizer steps before it.
        metrics: those that validation logged.
        methods: callback name -> its strength in [0, 1], and the numbers that it logs, such as its sparsity.
        parameters: number of parameters; fewer than before mark a removal of channels.
    """

    step: int
    metrics: Mapping[str, float]
    methods: Mapping[str, Mapping[str, float]]
    parameters: int

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Moment:
        """Inverse of ``dataclasses.asdict``; numbers that JSON does not have are NaN."""
        metrics = {name: float("nan" if value is None else value) for name, value in values["metrics"].items()}
        methods = {name: dict(numbers) for name, numbers in values["methods"].items()}
        return cls(int(values["step"]), metrics, methods, int(values["parameters"]))


def moment(step: int, metrics: Mapping[str, float], callbacks: Iterable[object], module: nn.Module) -> Moment:
    """The validation that ends now.

    Args:
        step: optimizer steps before it.
        metrics: those that it logged.
        callbacks: of the Trainer.
        module: the module as it is now.
    """
    methods = {
        name: {"strength": float(callback.strength), **callback.metrics()}
        for name, callback in names_of(callbacks).items()
        if hasattr(callback, "metrics") and isinstance(getattr(callback, "strength", None), int | float)
    }
    return Moment(step, dict(metrics), methods, sum(parameter.numel() for parameter in module.parameters()))
