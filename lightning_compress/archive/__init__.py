"""The compact lossless archive `.lcz`: a state dict and records in one file near its entropy, without pickle."""

from lightning_compress.archive.coding.cursors import ArchiveError
from lightning_compress.archive.coding.records import is_plain
from lightning_compress.archive.contents import ArchiveContents, ArchivedTensor, inspect_archive
from lightning_compress.archive.files import (
    Archived,
    Sizes,
    archived_bytes,
    archived_sizes,
    load_archive,
    read_archive,
    save_archive,
)

__all__ = [
    "ArchiveContents",
    "ArchiveError",
    "Archived",
    "ArchivedTensor",
    "Sizes",
    "archived_bytes",
    "archived_sizes",
    "inspect_archive",
    "is_plain",
    "load_archive",
    "read_archive",
    "save_archive",
]
