"""Drafts: files and folders that are written aside, and take their place when they are whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

__all__ = ["draft_of"]


@contextmanager
def draft_of(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write and check a file or folder at, which then takes its place at ``path``; for a ``with`` statement.

    The draft has the name of ``path``, in a hidden folder of a random name beside it; other files that are written
    there come along. When the block ends, everything is flushed to the disk and renamed: at any instant ``path`` holds
    the earlier file, or the new one, whole. After an error the draft is deleted, and the earlier file stays.

    A symbolic link at ``path`` stays; the file that it points to is replaced, and keeps its permissions.

    Args:
        path: the file or folder.

    Raises:
        FileNotFoundError: the folder of ``path`` does not exist.
        IsADirectoryError: a file was written, and ``path`` is a folder.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "a.txt"
    >>> with draft_of(path) as draft:
    ...     _ = draft.write_text("whole"), path.exists()
    >>> path.read_text(), [file.name for file in path.parent.iterdir()]
    ('whole', ['a.txt'])
    """
    place = Path(os.path.realpath(path))
    if not place.parent.is_dir():
        raise FileNotFoundError(f"need a path in a folder that exists, got {str(path)!r}: make {str(place.parent)!r}")
    with TemporaryDirectory(prefix=f".{place.name}.", suffix=".tmp", dir=place.parent) as folder:
        yield Path(folder) / place.name
        written = sorted(Path(folder).iterdir(), key=lambda file: file.name == place.name)  # the named one last
        for file in written:
            _flush(file)
        for file in written:
            _move(file, place.parent / file.name)
        _sync(place.parent)


def _move(draft: Path, place: Path) -> None:
    if draft.is_dir() and place.is_dir():
        os.replace(place, draft.with_name(f"{draft.name}.earlier"))  # no system call exchanges two folders everywhere
    elif place.is_file():
        shutil.copymode(place, draft)
    os.replace(draft, place)


def _flush(path: Path) -> None:
    for inside in sorted(path.rglob("*")) if path.is_dir() else ():
        _sync(inside)
    _sync(path)


def _sync(path: Path) -> None:
    """Wait until the disk holds a file, or the names in a folder; Windows opens no folder."""
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
