"""The compact lossless archive `.lcz`: any state dict in one file near its entropy, without pickle."""

from lightning_compress.archive.coding.cursors import ArchiveError
from lightning_compress.archive.contents import ArchiveContents, ArchivedTensor, inspect_archive
from lightning_compress.archive.files import archived_bytes, load_archive, save_archive

__all__ = [
    "ArchiveContents",
    "ArchiveError",
    "ArchivedTensor",
    "archived_bytes",
    "inspect_archive",
    "load_archive",
    "save_archive",
]
