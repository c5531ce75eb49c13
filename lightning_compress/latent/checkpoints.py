"""Checkpoints: the latents in them, and adapters without the model around them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from lightning_compress.adapters import AdditivePath, additive_paths
from lightning_compress.adapters.merging import norms_of
from lightning_compress.adapters.records import announce
from lightning_compress.carried import Structure, carry
from lightning_compress.lightnings import rank_zero_warn
from lightning_compress.messages import listed

__all__ = ["LATENTS", "OPENED", "moved", "save_adapters"]

LATENTS, OPENED = "latent_weights", "opened_weights"
"""Keys of the latents, and of the names of parameters that hold theirs."""

_SUMS = "norms_of_adapters"
"""Key of the norm of each sum of adapters: name of the weight -> norm."""


def save_adapters(module: nn.Module, paths: Collection[AdditivePath]) -> None:
    """Let checkpoints of a LightningModule say that weights are compressed with their adapters.

    A checkpoint that holds adapters alone leaves out the latents of the frozen weights, too.
    """
    announce(module, paths)
    if paths:
        carry(module, _THIN)


def moved(paths: Iterable[AdditivePath], checkpoint: Mapping[str, Any]) -> list[str]:
    """Names of the weights to project anew when a run resumes: those that the state dict of its checkpoint lacks.

    With a warning, those too whose adapters are others than in the checkpoint, by their scales or by those in use.
    """
    paths = list(paths)
    norms = checkpoint.get(_SUMS, {})
    known = [path for path in paths if path.weight_name in norms]
    changed = [path.weight_name for path in known if not _close(path, norms[path.weight_name])]
    if changed:
        rank_zero_warn(
            f"the adapters of {listed(changed)} are not those of the checkpoint: they have other scales, or others are "
            "active. The run goes on with the sums of now; for the same run, build the model as it was"
        )
    return list(dict.fromkeys([*_unsaved(paths, checkpoint), *changed]))


def _close(path: AdditivePath, norm: float) -> bool:
    return math.isclose(norms_of(path)[1], norm, rel_tol=max(1e-4, torch.finfo(path.parameter.dtype).eps))


def _unsaved(paths: Iterable[AdditivePath], checkpoint: Mapping[str, Any]) -> list[str]:
    """Names of the frozen weights with adapters that the state dict of a checkpoint lacks: it holds adapters alone.

    The latent of such a weight is the weight that the model is built with, before a run.
    """
    state = checkpoint.get("state_dict")
    if state is None:  # a distributed checkpoint keeps it in files of its own
        return []
    return [path.weight_name for path in paths if path.weight_name not in state and not path.parameter.requires_grad]


def _pack(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    if LATENTS not in checkpoint:
        return
    paths = additive_paths(module)
    checkpoint[_SUMS] = {path.weight_name: norms_of(path)[1] for path in paths}
    for name in _unsaved(paths, checkpoint):
        checkpoint[LATENTS].pop(name, None)


def _nothing(module: nn.Module) -> dict[str, Any]:
    return {}


def _ignore(module: nn.Module, record: dict[str, Any]) -> None:
    return


_THIN = Structure("thin_checkpoints", _nothing, _ignore, pack=_pack)
