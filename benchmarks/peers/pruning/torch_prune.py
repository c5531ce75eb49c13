"""torch.nn.utils.prune by hand: the global ramp that PruningCallback has, masks every 50 steps.

The identity masks at the begin give the state dict its final keys, so that a checkpoint loads.
"""

from __future__ import annotations

from torch import nn

from benchmarks.peers.recipe import Run, plain

__all__ = ["plain", "train"]


def train(run: Run, sparsity: float) -> nn.Module:
    """Pruned to ``sparsity``."""
    model, steps = run.model, run.steps
    every = min(50, max(1, steps // 20))
    # user code
    from torch.nn.utils import prune

    weights = [(module, "weight") for module in model.modules() if isinstance(module, nn.Linear)]
    for module, name in weights:
        prune.identity(module, name)

    def zeros(step: int) -> float:
        ramp = min(1.0, max(0.0, (step / steps - 0.15) / 0.55))
        return sparsity * (1 - (1 - ramp) ** 3)

    def after_step(step: int) -> None:
        if step % every == 0 and zeros(step) > zeros(step - every):
            amount = 1 - (1 - zeros(step)) / (1 - zeros(step - every))
            prune.global_unstructured(weights, prune.L1Unstructured, amount=amount)

    # end
    run.loop(model, after_step)
    # user code
    for module, name in weights:
        prune.remove(module, name)
    # end
    return model
