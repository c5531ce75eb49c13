"""Compression that happens during training, for PyTorch Lightning.

Every public name is reachable after ``import lightning_compress``: callbacks and functions here, the objects that are
passed to them in the rooms, as ``lightning_compress.schedules.Cubic``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightning_compress import adapters as adapters
    from lightning_compress import channels as channels
    from lightning_compress import deploy as deploy
    from lightning_compress import distillation as distillation
    from lightning_compress import low_rank as low_rank
    from lightning_compress import metrics as metrics
    from lightning_compress import pruning as pruning
    from lightning_compress import quantization as quantization
    from lightning_compress import report as report
    from lightning_compress import schedules as schedules
    from lightning_compress import search as search
    from lightning_compress import sharing as sharing
    from lightning_compress import targets as targets
    from lightning_compress import training as training
    from lightning_compress import tying as tying
    from lightning_compress.archive import ArchiveError, load_archive
    from lightning_compress.channels import ChannelPruningCallback, remove_zero_channels
    from lightning_compress.deploy import export, freeze
    from lightning_compress.distillation import DistillationCallback, DistillationModule
    from lightning_compress.loading import load_compressed
    from lightning_compress.low_rank import LowRankCallback, split_low_rank
    from lightning_compress.pruning import NM, Block, PruningCallback, Unstructured
    from lightning_compress.quantization import (
        BinarizationCallback,
        MixedBits,
        PerChannel,
        PerGroup,
        PerTensor,
        QATCallback,
    )
    from lightning_compress.report import CompressionReport
    from lightning_compress.schemas import RecordError
    from lightning_compress.search import CompressionBudget, compare, plan, sensitivity
    from lightning_compress.sharing import WeightSharingCallback

__version__ = "0.1.0"

__all__ = [
    "NM",
    "ArchiveError",
    "BinarizationCallback",
    "Block",
    "ChannelPruningCallback",
    "CompressionBudget",
    "CompressionReport",
    "DistillationCallback",
    "DistillationModule",
    "LowRankCallback",
    "MixedBits",
    "PerChannel",
    "PerGroup",
    "PerTensor",
    "PruningCallback",
    "QATCallback",
    "RecordError",
    "Unstructured",
    "WeightSharingCallback",
    "compare",
    "export",
    "freeze",
    "load_archive",
    "load_compressed",
    "plan",
    "remove_zero_channels",
    "sensitivity",
    "split_low_rank",
]

# A name is imported when it is first used: a program that only loads an archive never imports Lightning.
_NAMES_BY_ROOM = {
    "archive": ("ArchiveError", "load_archive"),
    "channels": ("ChannelPruningCallback", "remove_zero_channels"),
    "deploy": ("export", "freeze"),
    "distillation": ("DistillationCallback", "DistillationModule"),
    "loading": ("load_compressed",),
    "low_rank": ("LowRankCallback", "split_low_rank"),
    "pruning": ("NM", "Block", "PruningCallback", "Unstructured"),
    "quantization": ("BinarizationCallback", "MixedBits", "PerChannel", "PerGroup", "PerTensor", "QATCallback"),
    "report": ("CompressionReport",),
    "schemas": ("RecordError",),
    "search": ("CompressionBudget", "compare", "plan", "sensitivity"),
    "sharing": ("WeightSharingCallback",),
}
_ROOM_OF = {name: room for room, names in _NAMES_BY_ROOM.items() for name in names}


def __getattr__(name: str) -> object:
    if name in _ROOM_OF:
        return getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    if not name.startswith("_") and find_spec(f"{__name__}.{name}"):
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
