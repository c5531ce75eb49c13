"""Differences: other code has written into weights, or has only left rounding errors in them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lightning_compress.blocks import blocks
from lightning_compress.messages import listed
from lightning_compress.processes import on_any_process

__all__ = ["check_exact", "check_finite", "check_fitting", "check_same", "rewritten"]


def rewritten(compressed: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the weights that differ from the compressed ones by more than rounding errors; a collective.

    A swap by arithmetic and back, ``p + d - d``, leaves a few units in the last place of the largest weight.

    Args:
        compressed: name -> tensor; of those weights at least that differ from it.
        weights: name -> tensor of the same shape; of the same names on each process.

    Returns:
        names of the weights that differ on any process.

    >>> rewritten({"a": torch.ones(2), "b": torch.ones(2)}, {"a": torch.ones(2) + 1e-7, "b": torch.ones(2) + 1e-3})
    ['b']
    """
    differ = on_any_process([_beyond_rounding(compressed.get(name, one), one) for name, one in weights.items()])
    return [name for name, differs in zip(weights, differ, strict=True) if differs]


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Require weights that are numbers.

    Raises:
        RuntimeError: one of them is NaN or infinite.

    >>> check_finite({"a": torch.tensor([1.0, float("nan")])})
    Traceback (most recent call last):
    RuntimeError: need finite weights to compress, got NaN or infinity in a: the training has diverged; ...
    """
    filled = {name: weight for name, weight in weights.items() if weight.numel()}
    broken = [name for name, weight in filled.items() if not torch.stack(torch.aminmax(weight)).isfinite().all()]
    if broken:
        raise RuntimeError(
            f"need finite weights to compress, got NaN or infinity in {listed(broken)}: the training has diverged; "
            "lower the learning rate, clip the gradients (gradient_clip_val of the Trainer), or go on from an earlier "
            "checkpoint"
        )


def check_fitting(latents: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
    """Require that each latent of a checkpoint belongs to a parameter of its shape.

    Raises:
        ValueError: one of them does not.
    """
    for name, latent in latents.items():
        if name not in parameters or parameters[name].shape != latent.shape:
            raise ValueError(
                f"need latent weights of the targeted parameters, got {name!r} of shape {tuple(latent.shape)}: "
                "resume with the include and exclude patterns that the checkpoint was written with"
            )


def check_exact(latents: Mapping[str, Tensor], kept: Mapping[str, Tensor]) -> None:
    """Require that latents of a checkpoint are kept as they are.

    Raises:
        ValueError: one of them was rounded.
    """
    for name, latent in latents.items():
        if kept[name].element_size() < latent.element_size() and not torch.equal(kept[name].to(latent), latent):
            raise ValueError(
                f"need latents that bfloat16 holds exactly, got others of {name!r}: the checkpoint was written without "
                "HalfLatents, resume it without"
            )


def check_same(weights: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> None:
    """Require that parameters hold their compressed weights.

    Raises:
        RuntimeError: one of them holds something else.
    """
    for name, weight in weights.items():
        parts = blocks(weight, held[name])
        differing = sum(int(((one != other) & ~one.isnan()).count_nonzero()) for one, other in parts)
        if differing:
            raise RuntimeError(
                f"need {name!r} to hold its compressed weights, got others in {differing} of {weight.numel()} places: "
                "something wrote into the parameter after the optimizer had stepped"
            )


def _beyond_rounding(compressed: Tensor, weight: Tensor) -> Tensor:
    if compressed is weight or not weight.numel():
        return torch.zeros((), dtype=torch.bool, device=weight.device)
    # A weight that is not a number must not make all others differ.
    largest = torch.stack(torch.aminmax(compressed)).abs().amax().nan_to_num()
    rounding = 8 * torch.finfo(weight.dtype).eps * largest
    differ = [(~((other - one).abs() <= rounding) & ~one.isnan()).any() for one, other in blocks(compressed, weight)]
    return torch.stack(differ).any()
