"""Checkpoints as teachers."""

from __future__ import annotations

from contextvars import Context
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch import nn
from torch.serialization import get_unsafe_globals_in_checkpoint

from lightning_compress.arguments import check_file, check_path, shown
from lightning_compress.lightnings import LightningModule
from lightning_compress.messages import listed
from lightning_compress.state_dicts import difference

__all__ = ["from_checkpoint"]


def from_checkpoint(cls: type[LightningModule], path: str) -> nn.Module:
    """A trained teacher from a Lightning checkpoint, for YAML.

    Args:
        cls: class of the teacher.
        path: the checkpoint.

    Raises:
        TypeError: ``cls`` is no class of a LightningModule, or ``path`` is no path.
        FileNotFoundError: no file is there.
        ValueError: the file is no checkpoint of the Trainer, or one of another module.

    Example:
        ```yaml
        teacher:
          class_path: lightning_compress.distillation.from_checkpoint
          init_args: {cls: my.ResNet20, path: resnet20.ckpt}
        ```
    """
    if not isinstance(cls, type) or not issubclass(cls, LightningModule):
        raise TypeError(f"need cls as the class of a LightningModule, got {shown(cls)}")
    check_path(path=path)
    if "://" not in str(path):  # Lightning also reads addresses
        check_file(path=path)
        _check_checkpoint(path)
    try:
        # In a context of its own: LightningCLI gives its model's hyperparameters to every module that is built
        # meanwhile.
        return Context().run(cls.load_from_checkpoint, path, map_location="cpu")
    except RuntimeError as error:
        found = difference(error)
        if found is None:
            raise
        raise ValueError(
            f"need the class of the module in path={str(path)!r} as cls, got {cls.__name__}: {found}; pass the class "
            "that it was trained with, or load it by load_compressed if it was compressed"
        ) from error


def _check_checkpoint(path: str) -> None:
    """Refuse a file that the Trainer has not written, or that may run code."""
    content: Any = None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=is_zipfile(path) or None)
    except Exception:  # of many kinds, most of which do not name the file
        if unsafe := _unsafe(path):
            raise ValueError(
                f"need a checkpoint of tensors and plain values as path, got {str(path)!r}, which holds "
                f"{listed(unsafe)}: in Python, cls.load_from_checkpoint(path, weights_only=False) loads one that you "
                "trust"
            ) from None
    if not isinstance(content, dict) or "state_dict" not in content:
        kind = "an archive, which load_compressed loads" if Path(path).suffix == ".lcz" else "none"
        raise ValueError(f"need a checkpoint that the Trainer wrote as path, got {str(path)!r}, which is {kind}")


def _unsafe(path: str) -> list[str]:
    """Names of the objects in a file that may run code; none in a file that is damaged."""
    try:
        return sorted(get_unsafe_globals_in_checkpoint(path))
    except Exception:  # no file of torch.save
        return []
