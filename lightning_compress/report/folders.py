"""Folders: where the files of a report go, apart for every run."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

__all__ = ["run_folder"]

_REPORTS = "compression_reports"  # in the Trainer's default_root_dir, for runs without a logger


def run_folder(trainer: Any, dirpath: str | Path | None) -> Path:
    """Make the folder of one run's report on rank 0, and return it on every rank; a collective.

    Args:
        trainer: in ``fit``; its loggers have begun.
        dirpath: the folder that the user named; without one it is that of the Trainer's first logger, or a new one in
            ``default_root_dir``. A report of an earlier run is never overwritten there.

    Raises:
        OSError: the folder cannot be made.
    """
    made = str(_made(trainer, dirpath)) if trainer.is_global_zero else ""
    return Path(trainer.strategy.broadcast(made))


def _made(trainer: Any, dirpath: str | Path | None) -> Path:
    if dirpath is None and not trainer.loggers:
        return _numbered(Path(trainer.default_root_dir) / _REPORTS)
    folder = _logged(trainer) if dirpath is None else Path(dirpath)
    if dirpath is None and (folder / "report.json").exists():  # of an earlier fit with this logger
        return _numbered(folder / _REPORTS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise NotADirectoryError(f"need dirpath as a folder, got {str(folder)!r}, where a file is") from error
    return folder


def _logged(trainer: Any) -> Path:
    """The folder of the run that the first logger logs."""
    logger = trainer.loggers[0]
    if getattr(logger, "log_dir", None):  # of TensorBoard and CSV: a version of its own for every run
        return Path(logger.log_dir)
    version = logger.version if isinstance(logger.version, str) else f"version_{logger.version}"
    return Path(logger.save_dir or trainer.default_root_dir) / str(logger.name) / version


def _numbered(parent: Path) -> Path:
    """Make the first folder ``parent/version_0``, ``version_1``... that does not exist, also beside other processes."""
    for number in count():
        folder = parent / f"version_{number}"
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        return folder
    raise AssertionError
