"""Checkpoints: tensors, progress, hyperparameters, and the parts that callbacks wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor

from lightning_compress.cli.files.archives import described
from lightning_compress.cli.screens.tables import narrow_table, pairs_table, printable
from lightning_compress.loading.checkpoints import HPARAMS, content_of

__all__ = ["Checkpoint", "as_dict", "read", "tables"]


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint of the Trainer.

    Attributes:
        file_bytes: size of the file.
        tensors: the state dict.
        hyperparameters: name -> text of the value.
        parts: key of each other part -> its content in words.
    """

    file_bytes: int
    tensors: dict[str, Tensor]
    hyperparameters: dict[str, str]
    parts: dict[str, str]


def read(path: Path) -> Checkpoint:
    """Read a checkpoint; objects in it are not built.

    Raises:
        ValueError: the file is no checkpoint of the Trainer, or damaged.
        OSError: the file cannot be read.
    """
    size = path.stat().st_size
    try:
        content = content_of(path, "cpu")
        tensors = {str(name): value for name, value in content["state_dict"].items() if isinstance(value, Tensor)}
    except Exception as error:  # of many kinds, most of which do not name the file
        raise ValueError(
            f"need a checkpoint that the Trainer wrote, got {str(path)!r}, which is none or is damaged"
        ) from error
    hyperparameters = content.get(HPARAMS)
    return Checkpoint(
        size,
        tensors,
        dict(described(dict(hyperparameters))) if isinstance(hyperparameters, dict) else {},
        {str(key): _in_words(value) for key, value in content.items() if key not in ("state_dict", HPARAMS)},
    )


def tables(found: Checkpoint) -> list[Table]:
    """The state dict, tensor by tensor and in total; the hyperparameters; the other parts."""
    table = narrow_table("tensor", "shape", "dtype", "zeros", "values", "bytes", title="State dict")
    for name, tensor in found.tensors.items():
        row = _row(name, tensor)
        shape = " x ".join(map(str, row["shape"])) or "scalar"
        table.add_row(
            printable(name), shape, row["dtype"], f"{row['zeros']:.1%}", f"{row['distinct']:,}", f"{row['bytes']:,}"
        )
    table.add_section()
    total = sum(tensor.nbytes for tensor in found.tensors.values())
    table.add_row("state dict", "", "", "", "", f"{total:,}", style="bold")
    table.add_row("file", "", "", "", "", f"{found.file_bytes:,}", style="bold")
    others = pairs_table("part", "content", title="Other parts")
    for key, text in {
        **{f"{HPARAMS}.{name}": text for name, text in found.hyperparameters.items()},
        **found.parts,
    }.items():
        others.add_row(printable(key), printable(text))
    return [table, others]


def as_dict(found: Checkpoint) -> dict[str, Any]:
    """Everything as numbers and text."""
    return {
        "file_bytes": found.file_bytes,
        "hyperparameters": found.hyperparameters,
        "parts": found.parts,
        "tensors": [_row(name, tensor) for name, tensor in found.tensors.items()],
    }


def _row(name: str, tensor: Tensor) -> dict[str, Any]:
    return {
        "name": name,
        "shape": list(tensor.shape),
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "zeros": 1 - int(tensor.count_nonzero()) / max(1, tensor.numel()),
        "distinct": len(torch.unique(torch.view_as_real(tensor) if tensor.is_complex() else tensor)),
        "bytes": tensor.nbytes,
    }


def _in_words(value: Any) -> str:
    if isinstance(value, dict | list | tuple):
        names = ", ".join(str(key) for key in list(value)[:4]) if isinstance(value, dict) else ""
        return f"{len(value)} entries" + (f": {names}"[:300] if names else "")
    return "an object that was not built" if type(value).__name__ == "Unsafe" else str(value)
