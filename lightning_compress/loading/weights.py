"""Weights: a module starts from those in a file, and its training begins anew."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lightning_compress.arguments import check_file
from lightning_compress.loading.checkpoints import archive_as_checkpoint, content_of, is_archive
from lightning_compress.state_dicts import difference

__all__ = ["load_weights"]


def load_weights(module: nn.Module, weights: str | Path) -> None:
    """Let a module start from the weights in a file.

    Args:
        module: the module; every weight and buffer of it has to be in the file, and no other.
        weights: a checkpoint of the Trainer, an archive ``.lcz``, or a state dict that ``torch.save`` wrote. The file
            cannot run code.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no weights, or those of another module.
        ArchiveError: the archive is damaged.
    """
    check_file(weights=weights)
    state = _state_in(weights)
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        found = difference(error)
        if found is None:
            raise
        raise ValueError(
            f"need weights of this {type(module).__name__}, got those of another model in {str(weights)!r}: {found}; "
            "build the model with the arguments that it was trained with, or go on with that run by ckpt_path"
        ) from error


def _state_in(path: str | Path) -> dict[str, Tensor]:
    need = f"need weights as a checkpoint of the Trainer, an archive or a state dict, got {str(path)!r}, "
    if is_archive(path):
        content: Any = archive_as_checkpoint(path, ())
    else:
        try:
            content = content_of(path, "cpu")
        except Exception as error:  # of many kinds, most of which do not name the file
            raise ValueError(f"{need}which is none of these, or not whole") from error
    state = content.get("state_dict", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not state or not all(isinstance(one, Tensor) for one in state.values()):
        raise ValueError(f"{need}which holds something else: save module.state_dict(), not the module")
    return dict(state)
