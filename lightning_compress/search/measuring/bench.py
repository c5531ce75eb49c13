"""The bench: a copy of a module on which trials are measured one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from torch import nn

from lightning_compress.archive import archived_bytes
from lightning_compress.costs.second_order import second_order_cost
from lightning_compress.example_inputs import evaluating
from lightning_compress.search.fisher import BatchLoss, GradientMoments, gradient_moments
from lightning_compress.search.measuring.subsets import singly
from lightning_compress.search.measuring.trials import Trial, alone
from lightning_compress.search.objectives import Score, score

__all__ = ["Bench"]


class Bench:
    """Measures trials; each leaves the module as it was.

    Args:
        module: a copy of the user's module.
        batches: the examples.
        loss: module, batch -> mean loss.
        metric: module, batches -> number.
        fisher_examples: number of examples of the Fisher information.
    """

    def __init__(
        self, module: nn.Module, batches: Sequence[Any], loss: BatchLoss, metric: Score, fisher_examples: int
    ) -> None:
        self._fisher_examples = fisher_examples
        self._module = module
        self._batches = batches
        self._loss = loss
        self._metric = metric

    @cached_property
    def _moments(self) -> GradientMoments:
        """Moments of all parameters: frozen ones that a method compresses have a sensitivity, too."""
        frozen = [parameter for parameter in self._module.parameters() if not parameter.requires_grad]
        for parameter in frozen:
            parameter.requires_grad = parameter.is_floating_point()
        try:
            return gradient_moments(self._module, singly(self._batches, self._fisher_examples), self._loss)
        finally:
            for parameter in frozen:
                parameter.requires_grad = False

    def measure(self, trial: Trial) -> dict[str, Any]:
        """Metric, cost, fraction of zeros and bytes with one layer compressed."""
        parameters = dict(self._module.named_parameters())
        moments = self._moments
        with evaluating(self._module), alone(trial, self._module, self._batches[0], moments.mean, self._run) as before:
            projected = {name: parameters[name].detach() for name in trial.names}
            weight = projected[trial.layer]
            return {
                "metric": score(self._metric, self._module, self._batches),
                "cost": sum(
                    second_order_cost(moments.square[name], before[name], projected[name]) for name in trial.names
                ),
                "first_order": sum(
                    float((moments.mean[name] * (projected[name] - before[name])).sum()) for name in trial.names
                ),
                "sparsity": 1 - int(weight.count_nonzero()) / weight.numel(),
                "archive_bytes": archived_bytes(projected),
            }

    def _run(self) -> None:
        self._loss(self._module, self._batches[0])
