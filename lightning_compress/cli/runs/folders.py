"""Folders of runs: the weights, the config or the class, found from one path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Source", "source_of"]

_CONFIG, _ARCHIVE = "config.yaml", "model.lcz"


@dataclass(frozen=True)
class Source:
    """The files that a trained module is made of.

    Attributes:
        weights: a checkpoint ``.ckpt`` or an archive ``.lcz``.
        config: the config of its run; None if there is none.
        cls: dotted path of the class of the module, where there is no config; empty otherwise.
        others: weights in the same folder that were not taken.
    """

    weights: Path
    config: Path | None
    cls: str = ""
    others: tuple[Path, ...] = ()


def source_of(path: Path, config: Path | None = None, cls: str | None = None) -> Source:
    """Find the weights, and the config or the class of the module.

    Args:
        path: the folder of a run, a checkpoint or an archive.
        config: a config; by default the ``config.yaml`` in the folder of the run.
        cls: dotted path of the class; by default that of the config. A class named by a file is not taken.

    Raises:
        ValueError: a file is missing, or says too little.
    """
    if not path.exists():
        raise ValueError(f"need the folder of a run, a .ckpt or an .lcz, got {str(path)!r}, which does not exist")
    if config is not None and cls:
        raise ValueError(
            f"need one of --config and --model, got both: the class is that of the config, or {cls} without one"
        )
    if config is not None and not config.is_file():
        raise ValueError(f"need a file as --config, got {str(config)!r}, which does not exist")
    weights, others = _weights_in(path) if path.is_dir() else (path, ())
    if weights.suffix not in (".ckpt", ".lcz"):
        raise ValueError(f"need the folder of a run, a .ckpt or an .lcz, got {str(path)!r}")
    if cls:
        return Source(weights, None, cls, others)
    found = config or _config_of(weights)
    if not found:
        recorded = _recorded_class(weights)
        hint = f": {recorded}, as the file says, if you trust it" if recorded else ""
        raise ValueError(
            f"need the class of the module of {str(weights)!r}, got none: pass --config of its run, or --model with "
            f"the dotted path of the class{hint}"
        )
    return Source(weights, found, "", others)


def _weights_in(folder: Path) -> tuple[Path, tuple[Path, ...]]:
    """The model at the end of a run, and the other weights there.

    It is the archive of the report. ``last.ckpt`` may be older: Lightning writes it together with a better one.
    """
    checkpoints = sorted({*folder.glob("*.ckpt"), *folder.glob("checkpoints/*.ckpt")})
    archives = [path for path in (folder / _ARCHIVE,) if path.is_file()]
    last = [path for path in checkpoints if path.name == "last.ckpt"]
    chosen = archives or last or (checkpoints if len(checkpoints) == 1 else [])
    if not chosen:
        found = f"several checkpoints: {', '.join(path.name for path in checkpoints)}" if checkpoints else "none"
        raise ValueError(
            f"need a folder with {_ARCHIVE}, last.ckpt or a single checkpoint, got {str(folder)!r} with {found}: pass "
            "the path of the file"
        )
    return chosen[0], tuple(path for path in [*checkpoints, *archives] if path != chosen[0])


def _config_of(weights: Path) -> Path | None:
    beside = (weights.parent / _CONFIG, weights.parent.parent / _CONFIG)
    return next((path for path in beside if path.is_file()), None)


def _recorded_class(weights: Path) -> str:
    """The class that LightningCLI recorded in a file; empty if there is none."""
    from lightning_compress.archive import inspect_archive
    from lightning_compress.loading.checkpoints import CLASS_PATH, HPARAMS, content_of

    if weights.suffix == ".lcz":
        content: Any = inspect_archive(weights).records
    else:
        try:
            content = content_of(weights, "meta")
        except Exception as error:  # of many kinds, most of which do not name the file
            raise ValueError(f"need a checkpoint of the Trainer, got {str(weights)!r}, which is damaged") from error
    hparams = content.get(HPARAMS) if isinstance(content, dict) else None
    recorded = str(hparams.get(CLASS_PATH, "")) if isinstance(hparams, dict) else ""
    return recorded if re.fullmatch(r"[\w.]+", recorded) else ""
