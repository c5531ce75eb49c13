"""Archives: the ``.lcz`` file, which holds the state dict and the carried records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.archive import Sizes, archived_sizes, is_plain, read_archive, save_archive
from lightning_compress.carried import carried_records, record_structures
from lightning_compress.deploy.formats import Writer
from lightning_compress.loading.checkpoints import HPARAMS, HPARAMS_NAME, LEFT_OUT
from lightning_compress.loading.structures import structures_in

__all__ = ["Archive", "bytes_of", "is_complete", "records_of", "size_of", "sizes_of"]


@dataclass(frozen=True)
class Archive(Writer):
    """Writes the state dict and the carried records; the check compares every bit.

    The file is lossless, and as small as the values allow. It holds the hyperparameters that are plain values.
    """

    suffix = ".lcz"
    needs_example = False

    def write(self, module: nn.Module, example: None, path: Path) -> None:
        """Write the state dict and the records.

        Raises:
            TypeError: the state dict holds something other than tensors, or a record something that is not plain.
        """
        records = records_of(module)
        save_archive(module.state_dict(), path, records, complete=is_complete(module, records))

    def check(self, module: nn.Module, example: None, path: Path) -> None:
        """Load the file and compare its bytes with those of the state dict and of the records.

        Raises:
            ValueError: a tensor or a record differs.
        """
        loaded = read_archive(path)
        for name, tensor in module.state_dict().items():
            if not torch.equal(bytes_of(loaded.tensors[name]), bytes_of(tensor)):
                raise ValueError(f"need {path.name} to hold the state dict bit for bit, got another {name!r}")
        if not _same(loaded.records, records_of(module)):
            raise ValueError(f"need {path.name} to hold the records of the module, got others")


def records_of(module: nn.Module) -> dict[str, Any]:
    """The records of ``module`` for an archive: carried ones, and hyperparameters that are plain values."""
    hparams = dict(getattr(module, "hparams", None) or {})
    plain = {name: value for name, value in hparams.items() if is_plain(value)}
    records: dict[str, Any] = {
        **record_structures(module, structures_in(module)),
        HPARAMS: plain,
        HPARAMS_NAME: getattr(module, "_hparams_name", None),
        LEFT_OUT: [name for name in hparams if name not in plain],
    }
    return {key: value for key, value in records.items() if value}


def size_of(module: nn.Module, tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the file of ``module`` with some tensors of its state dict replaced, by name."""
    return sizes_of(module, tensors).file


def sizes_of(module: nn.Module, tensors: Mapping[str, Tensor]) -> Sizes:
    """Bytes of the file of ``module``, and of each tensor in it, with some tensors of its state dict replaced."""
    records = records_of(module)
    return archived_sizes({**module.state_dict(), **tensors}, records, complete=is_complete(module, records))


def is_complete(module: nn.Module, records: Mapping[str, Any]) -> bool:
    """Whether the state dict alone is the model."""
    structures = {one.key: one for one in structures_in(module)}
    return not any(structures[key].alters(record) for key, record in carried_records(records).items())


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and torch.equal(bytes_of(one), bytes_of(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and (one == other or one != one)


def bytes_of(tensor: Tensor) -> Tensor:
    """The bytes of a tensor: values would compare NaN as unequal to itself, and -0.0 as equal to 0.0."""
    return tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)
