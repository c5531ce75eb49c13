"""NNCF: its masks follow the same ramp; its own schedulers know epochs only, and no cubic one."""

from __future__ import annotations

from torch import nn

from benchmarks.peers.recipe import Run, plain

__all__ = ["plain", "train"]


def train(run: Run, sparsity: float) -> nn.Module:
    """Pruned to ``sparsity``."""
    model, steps, example = run.model, run.steps, run.example
    every = min(50, max(1, steps // 20))
    # user code
    import nncf
    from nncf.torch.function_hook.pruning.magnitude.algo import update_pruning_ratio

    mode = nncf.PruneMode.UNSTRUCTURED_MAGNITUDE_GLOBAL
    model = nncf.prune(model, mode=mode, ratio=0.0, examples_inputs=example)

    def zeros(step: int) -> float:
        ramp = min(1.0, max(0.0, (step / steps - 0.15) / 0.55))
        return sparsity * (1 - (1 - ramp) ** 3)

    def after_step(step: int) -> None:
        if step % every == 0 and zeros(step) > zeros(step - every):
            update_pruning_ratio(model, mode, zeros(step))

    # end
    run.loop(model, after_step)
    # user code
    model = nncf.strip(model, strip_format=nncf.StripFormat.IN_PLACE, example_input=example)
    # end
    return model
