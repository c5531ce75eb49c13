"""fasterai's Sparsifier: global magnitudes, the masks of its callback applied after each step."""

from __future__ import annotations

from torch import nn

from benchmarks.peers.recipe import Run, plain

__all__ = ["plain", "train"]


def train(run: Run, sparsity: float) -> nn.Module:
    """Pruned to ``sparsity``."""
    model, steps = run.model, run.steps
    every = min(50, max(1, steps // 20))
    # user code
    from fasterai.core.criteria import large_final
    from fasterai.sparse.sparsifier import Sparsifier

    sparsifier = Sparsifier(model, "weight", "global", large_final, layer_type=nn.Linear)

    def after_step(step: int) -> None:
        ramp = min(1.0, max(0.0, (step / steps - 0.15) / 0.55))
        if step % every == 0 and ramp < 1:
            sparsifier.sparsify_model(100 * sparsity * (1 - (1 - ramp) ** 3))
        sparsifier._apply_masks()

    # end
    run.loop(model, after_step)
    # user code
    sparsifier.sparsify_model(100 * sparsity)
    sparsifier._clean_buffers()
    # end
    return model
