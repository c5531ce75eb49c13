"""Drafts: files and folders that are written aside, and take their place when they are whole."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatchcase
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

__all__ = ["check_replaceable", "draft_of"]

_SUFFIX = ".tmp"
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux
_LOCKS: Any = import_module("fcntl") if os.name == "posix" else None


def check_replaceable(path: str | os.PathLike[str], entries: Sequence[str]) -> None:
    """Refuse a folder that a draft must not replace; nothing, and an empty folder, may be at ``path``.

    Args:
        path: of the folder.
        entries: patterns of the names that an earlier folder of this kind holds.

    Raises:
        NotADirectoryError: a file stands there.
        FileExistsError: the folder holds other names, or this process works in it.
    """
    place = Path(path)
    if not place.exists():
        return
    if not place.is_dir():
        raise NotADirectoryError(f"need path as that of a folder, got {str(path)!r}, which is a file: choose another")
    if Path.cwd().is_relative_to(place.resolve()):
        raise FileExistsError(f"need path as that of a folder to replace, got the current one, {str(path)!r}")
    names = sorted(entry.name for entry in place.iterdir())
    others = [name for name in names if not any(fnmatchcase(name, pattern) for pattern in entries)]
    if others:
        raise FileExistsError(
            f"need path as that of a new folder, or of one to replace, got {str(path)!r}, which holds {others[0]!r}: "
            "choose another, or move that away"
        )


@contextmanager
def draft_of(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path to write and check a file or folder at, which then takes its place at ``path``; for a ``with`` statement.

    The draft has the name of ``path``, in a hidden folder of a random name beside it; other files that are written
    there come along. When the block ends, everything is flushed to the disk and renamed: at any instant ``path`` holds
    the earlier file, or the new one, whole. After an error the draft is deleted, and the earlier file stays.

    Linux exchanges two folders in one step. On other systems, and on file systems that cannot, an earlier folder moves
    into the hidden one first: a process that is killed in that instant leaves both of them there.

    A symbolic link at ``path`` stays; the file that it points to is replaced, and keeps its permissions.

    A process that is killed leaves its draft. The next draft of this path that takes its place deletes it, on Linux and
    until the machine starts anew: a lock shows that the writer is gone. On file systems whose folders cannot be locked,
    such as NFS, such drafts stay.

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
    with _locked_folder(place) as folder:
        yield folder / place.name
        written = sorted(folder.iterdir(), key=lambda file: file.name == place.name)  # the named one last
        for file in written:
            _flush(file)
        for file in written:
            _move(file, place.parent / file.name)
        _sync(place.parent)
    _delete_orphans(place)


@contextmanager
def _locked_folder(place: Path) -> Iterator[Path]:
    """A hidden folder beside ``place``, which is locked for as long as this process lives."""
    while True:
        with TemporaryDirectory(prefix=_prefix(place), suffix=_SUFFIX, dir=place.parent) as folder:
            lock = _lock(folder, wait=True)
            try:
                if os.path.isdir(folder):  # another process may take it for an orphan before it is locked
                    yield Path(folder)
                    return
            finally:
                if lock is not None:
                    os.close(lock)


def _delete_orphans(place: Path) -> None:
    """Delete the drafts of ``place`` whose writers have been killed."""
    for draft in place.parent.iterdir() if _machine() else ():
        if draft.name.startswith(_prefix(place)) and draft.name.endswith(_SUFFIX):
            lock = _lock(draft, wait=False)
            if lock is not None:
                shutil.rmtree(draft, ignore_errors=True)
                os.close(lock)


def _lock(folder: str | Path, *, wait: bool) -> int | None:
    """Lock a folder until the handle is closed; None if it cannot be locked, or if another process has locked it."""
    if _LOCKS is None:
        return None
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            _LOCKS.flock(handle, _LOCKS.LOCK_EX if wait else _LOCKS.LOCK_EX | _LOCKS.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return handle
    return None


def _prefix(place: Path) -> str:
    """Begin of the names of this machine's drafts: some network file systems show locks to one machine alone."""
    return f".{place.name}.{_machine()}"


def _machine() -> str:
    """A part of the number that Linux draws when the machine starts; empty on other systems."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text()[:8] + "."
    return ""


def _move(draft: Path, place: Path) -> None:
    if place.exists() and draft.is_dir() == place.is_dir():
        shutil.copymode(place, draft)
    if not (draft.is_dir() and place.is_dir()):
        os.replace(draft, place)
    elif not _exchange(draft, place):
        earlier = draft.with_name(f"{draft.name}.earlier")
        os.replace(place, earlier)
        try:
            os.replace(draft, place)
        except OSError:
            os.replace(earlier, place)
            raise


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders take each other's place in one step; False where the system cannot."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


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
