"""Validations: the metrics that a run logs, before compression, at its end and in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from torch import nn

from lightning_compress.report.measures.histories import Moment, moment

__all__ = ["Validations"]


class Validations:
    """Metrics of the validations of a run.

    Attributes:
        before: those of the model as it came in; empty if it was not validated.
        last: those of the last validation.
        step: optimizer steps before the last validation.
        history: every validation.
    """

    def __init__(self) -> None:
        self.before: dict[str, float] = {}
        self.last: dict[str, float] = {}
        self.step = 0
        self.history: list[Moment] = []
        self._earlier: dict[str, Any] = {}

    def begin(self, trainer: Any) -> None:
        """Note the metrics that stand there before a validation."""
        self._earlier = dict(trainer.callback_metrics)

    def end(self, trainer: Any, module: nn.Module) -> None:
        """Note the metrics of a validation, or of a sanity check of the model as it came in."""
        # Metrics that training logged are still there; validation has not replaced their tensors.
        fresh = {
            name: value.item()
            for name, value in trainer.callback_metrics.items()
            if value is not self._earlier.get(name) and value.numel() == 1
        }
        if trainer.sanity_checking:
            self.before = fresh
        else:
            self.last, self.step = fresh, trainer.global_step
            self.history.append(moment(trainer.global_step, fresh, trainer.callbacks, module))

    def state_dict(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        history = [asdict(one) for one in self.history]
        return {"metrics_before": self.before, "metrics": self.last, "validated": self.step, "history": history}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Inverse of :meth:`state_dict`; checkpoints of earlier versions have no history."""
        self.before, self.last, self.step = state["metrics_before"], state["metrics"], state["validated"]
        self.history = [Moment.from_dict(one) for one in state.get("history", ())]
