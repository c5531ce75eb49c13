"""Checkpoints: the latents in them, and adapters without the model around them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torch import nn

from lightning_compress.adapters import AdditivePath, additive_paths
from lightning_compress.adapters.records import announce
from lightning_compress.carried import Structure, carry

__all__ = ["LATENTS", "OPENED", "save_adapters", "unsaved"]

LATENTS, OPENED = "latent_weights", "opened_weights"
"""Keys of the latents, and of the names of parameters that hold theirs."""


def save_adapters(module: nn.Module, paths: Collection[AdditivePath]) -> None:
    """Let checkpoints of a LightningModule say that weights are compressed with their adapters.

    A checkpoint that holds adapters alone leaves out the latents of the frozen weights, too.
    """
    announce(module, paths)
    if paths:
        carry(module, _THIN)


def unsaved(paths: Iterable[AdditivePath], checkpoint: Mapping[str, Any]) -> list[str]:
    """Names of the frozen weights with adapters that the state dict of a checkpoint lacks: it holds adapters alone.

    The latent of such a weight is the weight that the model is built with, before a run.
    """
    state = checkpoint.get("state_dict")
    if state is None:  # a distributed checkpoint keeps it in files of its own
        return []
    return [path.weight_name for path in paths if path.weight_name not in state and not path.parameter.requires_grad]


def _pack(module: nn.Module, checkpoint: dict[str, Any]) -> None:
    for name in unsaved(additive_paths(module), checkpoint):
        checkpoint.get(LATENTS, {}).pop(name, None)


def _nothing(module: nn.Module) -> dict[str, Any]:
    return {}


def _ignore(module: nn.Module, record: dict[str, Any]) -> None:
    return


_THIN = Structure("thin_checkpoints", _nothing, _ignore, pack=_pack)
