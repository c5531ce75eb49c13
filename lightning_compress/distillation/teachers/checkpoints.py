"""Checkpoints as teachers."""

from __future__ import annotations

from contextvars import Context

from torch import nn

from lightning_compress.arguments import check_file
from lightning_compress.lightnings import LightningModule

__all__ = ["from_checkpoint"]


def from_checkpoint(cls: type[LightningModule], path: str) -> nn.Module:
    """A trained teacher from a Lightning checkpoint, for YAML.

    Args:
        cls: class of the teacher.
        path: the checkpoint.

    Raises:
        FileNotFoundError: no file is there.

    Example:
        ```yaml
        teacher:
          class_path: lightning_compress.distillation.from_checkpoint
          init_args: {cls: my.ResNet20, path: resnet20.ckpt}
        ```
    """
    if "://" not in str(path):  # Lightning also reads addresses
        check_file(path=path)
    # In a context of its own: LightningCLI gives its model's hyperparameters to every module that is built meanwhile.
    return Context().run(cls.load_from_checkpoint, path, map_location="cpu")
