"""Verification: after ``fit`` each method checks the weights that it promised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from lightning_compress.latent import LatentWeights
from lightning_compress.latent.differences import check_finite
from lightning_compress.processes import local

if TYPE_CHECKING:
    from lightning_compress.training.method import Method

__all__ = ["verify"]


@torch.no_grad()
def verify(methods: Sequence[Method], latents: LatentWeights, module: nn.Module) -> None:
    """Let each method verify its projection; and again after each later one, if its promise outlives those.

    Args:
        methods: in the order of projection.
        latents: of all targets.
        module: whose trained parameters have to be numbers.

    Raises:
        RuntimeError: a promise is broken, or a weight is not a number.
    """
    check_finite({name: local(p.detach()) for name, p in module.named_parameters() if p.requires_grad})
    done: list[Method] = []
    for projection, weights in latents.stages():
        done = [method for method in methods if method is projection or method in done]
        for method in done:
            if method is projection or method.outlives_later_projections:
                method.verify({name: weight for name, weight in weights.items() if name in method.active})
