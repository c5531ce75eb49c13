"""coremltools' MagnitudePruner: a cubic ramp, each layer to the same sparsity."""

from __future__ import annotations

from torch import nn

from benchmarks.peers.recipe import Run, plain

__all__ = ["plain", "train"]


def train(run: Run, sparsity: float) -> nn.Module:
    """Pruned to ``sparsity``."""
    model, steps = run.model, run.steps
    every = min(50, max(1, steps // 20))
    # user code
    from coremltools.optimize.torch.pruning import MagnitudePruner, MagnitudePrunerConfig

    updates = list(range(round(0.15 * steps), round(0.7 * steps), every))
    config = {"scheduler": {"update_steps": updates}, "target_sparsity": sparsity}
    pruner = MagnitudePruner(model, MagnitudePrunerConfig.from_dict({"global_config": config}))
    model = pruner.prepare(inplace=True)
    # end
    run.loop(model, lambda step: pruner.step())
    # user code
    pruner.finalize(inplace=True)
    # end
    return model
