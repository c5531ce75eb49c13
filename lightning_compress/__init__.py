"""Compression that happens during training, for PyTorch Lightning."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_compress.archive import ArchiveError, load_archive
    from lightning_compress.channels import ChannelPruningCallback, remove_zero_channels
    from lightning_compress.deploy import export, freeze
    from lightning_compress.distillation import DistillationCallback, DistillationModule
    from lightning_compress.loading import load_compressed
    from lightning_compress.pruning import NM, Block, PruningCallback, Unstructured
    from lightning_compress.quantization import BinarizationCallback, QATCallback
    from lightning_compress.report import CompressionReport
    from lightning_compress.sharing import WeightSharingCallback

__version__ = "0.1.0"

__all__ = [
    "NM",
    "ArchiveError",
    "BinarizationCallback",
    "Block",
    "ChannelPruningCallback",
    "CompressionReport",
    "DistillationCallback",
    "DistillationModule",
    "PruningCallback",
    "QATCallback",
    "Unstructured",
    "WeightSharingCallback",
    "export",
    "freeze",
    "load_archive",
    "load_compressed",
    "remove_zero_channels",
]

# A name is imported when it is first asked for: whoever only loads an archive needs nothing of Lightning.
_ROOMS = {
    "archive": ("ArchiveError", "load_archive"),
    "channels": ("ChannelPruningCallback", "remove_zero_channels"),
    "deploy": ("export", "freeze"),
    "distillation": ("DistillationCallback", "DistillationModule"),
    "loading": ("load_compressed",),
    "pruning": ("NM", "Block", "PruningCallback", "Unstructured"),
    "quantization": ("BinarizationCallback", "QATCallback"),
    "report": ("CompressionReport",),
    "sharing": ("WeightSharingCallback",),
    "tying": (),
}
_HOMES = {name: f"{__name__}.{room}" for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _ROOMS:
        return import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
