"""Lightning's ModelPruning, which prunes at the ends of epochs: the run is cut into 35 of them.

Each call prunes a fraction of the weights that are left, so the ramp has to be converted.
"""

from __future__ import annotations

from lightning.pytorch import LightningModule
from torch import nn

from benchmarks.peers.recipe import Run
from benchmarks.peers.trainers import fit

__all__ = ["plain", "train"]


def train(run: Run, sparsity: float) -> nn.Module:
    """Pruned to ``sparsity``."""
    epochs = run.steps // run.recipe.part
    # user code
    from lightning.pytorch.callbacks import ModelPruning

    def zeros(epoch: int) -> float:
        ramp = min(1.0, max(0.0, ((epoch + 1) / epochs - 0.15) / 0.55))
        return sparsity * (1 - (1 - ramp) ** 3)

    callbacks = [
        ModelPruning(
            "l1_unstructured",
            amount=lambda epoch: 1 - (1 - zeros(epoch)) / (1 - zeros(epoch - 1)),
            parameter_names=["weight"],
            use_lottery_ticket_hypothesis=False,
        )
    ]
    # end
    return fit(run, callbacks, run.recipe.part).model


def plain(run: Run) -> LightningModule:
    """The run in as many epochs, without the callback."""
    return fit(run, [], run.recipe.part)
