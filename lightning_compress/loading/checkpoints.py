"""Checkpoints that Lightning can read: made of archives, and of checkpoints with objects that are not safe to build."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Collection, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from lightning_compress.archive import read_archive
from lightning_compress.messages import hint

__all__ = [
    "CLASS_PATH",
    "HPARAMS",
    "HPARAMS_NAME",
    "LEFT_OUT",
    "VERSION",
    "archive_as_checkpoint",
    "content_of",
    "in_memory",
    "is_archive",
    "of_class",
    "readable",
    "require_arguments",
    "require_entry",
]

VERSION = "pytorch-lightning_version"  # key that a checkpoint of either Lightning has
HPARAMS, HPARAMS_NAME = "hyper_parameters", "hparams_name"  # as in a checkpoint of Lightning
LEFT_OUT = "left_out_hyper_parameters"  # names of those that an archive cannot hold
CLASS_PATH = "_class_path"  # hyperparameter that LightningCLI records: the class of the module
_FROM_ARCHIVE = "from_archive"
_LEFT_OUT_ENTRIES = "left_out_entries"  # names of other parts of a checkpoint that are not read


class _Unsafe:
    """Stands for an object of a class that no file may build; it takes every state, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Unsafe:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        return

    def __setstate__(self, state: Any) -> None:
        return


def is_archive(path: str | Path) -> bool:
    """Whether a file is an archive: by its suffix, whatever is in it."""
    return str(path).endswith(".lcz")


def archive_as_checkpoint(path: str | Path, given: Collection[str]) -> dict[str, Any]:
    """The content of an archive in the form of a checkpoint.

    Args:
        path: the archive.
        given: names of arguments that need not be in the file.

    Raises:
        ValueError: the archive lacks an argument of the module.
    """
    archived = read_archive(path)
    lost = archived.records.get(LEFT_OUT, [])
    _require(lost, given if archived.records.get(HPARAMS_NAME) not in given else lost)
    return {"state_dict": archived.tensors, **archived.records, _FROM_ARCHIVE: True}


def content_of(path: str | Path, map_location: str) -> Any:
    """The content of a file of ``torch.save``, with an empty stand-in for each object that no file may build.

    Args:
        path: the file.
        map_location: device of the tensors; ``"meta"`` reads none of their values.
    """
    # A class of its own for each name: torch looks them up by name, and compares classes.
    stand_ins: list[Any] = [(type("Unsafe", (_Unsafe,), {}), name) for name in get_unsafe_globals_in_checkpoint(path)]
    with safe_globals(stand_ins):
        return torch.load(path, map_location=map_location, weights_only=True)


def readable(path: str | Path, given: Collection[str], weights_only: bool) -> str | Path | BytesIO:
    """A checkpoint that ``load_from_checkpoint`` reads with the same ``weights_only``: the file, or a copy in memory.

    With ``weights_only=True`` the copy lacks objects that are neither tensors nor primitives: callbacks and optimizers
    may have them, and hyperparameters that are given anew.

    Args:
        path: a file that the Trainer wrote.
        given: names of the arguments that are given anew.
        weights_only: whether the file may build nothing but tensors and primitives.

    Raises:
        ValueError: the file is no checkpoint, or a hyperparameter is such an object, and not given.
    """
    if not weights_only or not Path(path).is_file():  # Lightning also reads addresses
        return path
    try:
        unsafe = get_unsafe_globals_in_checkpoint(path)
    except Exception as error:  # of many kinds: no file of torch.save, or a part of one
        raise _no_checkpoint(path) from error
    if not unsafe:
        return path
    checkpoint = content_of(path, "cpu")
    hparams = checkpoint.get(HPARAMS)
    if isinstance(hparams, dict):
        lost = [name for name, value in hparams.items() if _is_unsafe(value)]
        _require(lost, given if checkpoint.get(HPARAMS_NAME) not in given else lost)
        checkpoint[HPARAMS] = {name: value for name, value in hparams.items() if name not in lost}
    plain = {key: value for key, value in checkpoint.items() if not _is_unsafe(value)}
    return in_memory({**plain, _LEFT_OUT_ENTRIES: [key for key in checkpoint if key not in plain]})


def _no_checkpoint(path: str | Path) -> ValueError:
    """The error for a file that the Trainer has not written."""
    return ValueError(
        f"need a checkpoint that the Trainer wrote as ckpt_path, got {str(path)!r}, which is none: a state dict is "
        "loaded by load_state_dict of the module, which export in Python then writes"
    )


def of_class(
    source: str | Path | BytesIO, path: str | Path, cls: type, given: Collection[str], weights_only: bool
) -> str | Path | BytesIO:
    """A checkpoint of which ``load_from_checkpoint`` builds ``cls``, or a subclass of it.

    LightningCLI records the dotted path of the class, and Lightning then builds no subclass of that class.

    Args:
        source: the result of :func:`readable`, or a file in memory.
        path: the file, for messages.
        cls: class of the module.
        given: names of the arguments that are given anew.
        weights_only: whether the file may build nothing but tensors and primitives.

    Raises:
        ValueError: the file is no checkpoint of the Trainer, or lacks an argument of ``cls``, or records another class.
    """
    if not isinstance(source, BytesIO) and not Path(source).is_file():  # an address
        return source
    content = _checkpoint_in(source, path, weights_only)
    require_arguments(cls, content, given)
    hparams = content.get(HPARAMS)
    if not isinstance(hparams, dict) or CLASS_PATH not in hparams:
        return source
    recorded = str(hparams[CLASS_PATH])
    module, _, name = recorded.rpartition(".")
    if getattr(sys.modules.get(module), name, None) is not cls and name != cls.__name__:
        raise ValueError(f"need {recorded} as cls, the class that the file records, got {cls.__name__}")
    return in_memory({**content, HPARAMS: {key: value for key, value in hparams.items() if key != CLASS_PATH}})


def require_arguments(cls: type, checkpoint: Mapping[str, Any], given: Collection[str]) -> None:
    """Refuse arguments that a class does not take, and those without a default that are neither in a file nor given.

    Args:
        cls: class of the module.
        checkpoint: the content of the file.
        given: names of the arguments that are given.

    Raises:
        TypeError: the class does not take an argument that is given.
        ValueError: an argument has no value.
    """
    hparams, name = checkpoint.get(HPARAMS), checkpoint.get(HPARAMS_NAME)
    variable = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    taken = inspect.signature(cls).parameters
    parameters = [one for one in taken.values() if one.kind not in variable]
    # Lightning saves arguments by their names under the name "kwargs", and one object that holds all under its own.
    whole = name in [one.name for one in parameters]
    known = {*given, *([name] if whole else hparams if isinstance(hparams, Mapping) else ())}
    if not any(one.kind is inspect.Parameter.VAR_KEYWORD for one in taken.values()):
        inside = hparams if whole and isinstance(hparams, Mapping) else ()
        _require_taken(cls, given, [one.name for one in parameters] + list(inside))
    missing = [one.name for one in parameters if one.default is one.empty and one.name not in known]
    if missing:
        raise ValueError(
            f"need {', '.join(missing)} as arguments of {cls.__name__}, got a file without hyperparameters of these "
            f"names: pass load_compressed(..., {missing[0]}=...), or on the command line --config of the run"
        )


def _require_taken(cls: type, given: Collection[str], names: Collection[str]) -> None:
    for name in given:
        if name not in names:
            raise TypeError(
                f"need arguments that {cls.__name__} takes, out of {', '.join(names) or 'none'}, got {name!r}"
                + hint(name, names)
            )


def require_entry(name: object, checkpoint: Mapping[str, Any], cls: type) -> None:
    """Refuse a file that lacks an entry because it was left out when the file was written or read.

    Args:
        name: the key that ``on_load_checkpoint`` has not found.
        checkpoint: the content of the file.
        cls: class of the module.

    Raises:
        ValueError: an archive never holds the entry; or it is no plain value of the checkpoint.
    """
    if name in checkpoint.get(_LEFT_OUT_ENTRIES, ()):
        found = "a file in which it is no plain value: pass weights_only=False for a checkpoint that you trust"
    elif checkpoint.get(_FROM_ARCHIVE):
        found = "an archive, which holds no entries of a module's own: load a checkpoint of the module"
    else:
        return
    raise ValueError(f"need the entry {name!r}, which {cls.__name__}.on_load_checkpoint reads, got {found}")


def in_memory(checkpoint: Mapping[str, Any]) -> BytesIO:
    """A checkpoint as a file in memory."""
    buffer = BytesIO()
    torch.save(dict(checkpoint), buffer)
    buffer.seek(0)
    return buffer


def _checkpoint_in(source: str | Path | BytesIO, path: str | Path, weights_only: bool) -> dict[str, Any]:
    """The content of a checkpoint of the Trainer; whatever else is in the file is refused."""
    mapped = None if isinstance(source, BytesIO) else is_zipfile(source)
    try:
        content = torch.load(source, map_location="cpu", weights_only=weights_only, mmap=mapped)
    except Exception as error:  # of many kinds, most of which do not name the file
        raise _no_checkpoint(path) from error
    if isinstance(source, BytesIO):
        source.seek(0)
    if not isinstance(content, dict) or not {"state_dict", VERSION} <= content.keys():
        raise _no_checkpoint(path)
    return content


def _require(names: Collection[str], given: Collection[str]) -> None:
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(
            f"need {', '.join(missing)} as arguments of load_compressed, got a file that holds no plain values for "
            f"them: pass load_compressed(..., {missing[0]}=...), or weights_only=False for a checkpoint that you trust"
        )


def _is_unsafe(value: Any) -> bool:
    """Whether a value is, or holds, an object that was not built."""
    if isinstance(value, dict):
        return any(_is_unsafe(part) for pair in value.items() for part in pair)
    if isinstance(value, list | tuple | set):
        return any(map(_is_unsafe, value))
    return isinstance(value, _Unsafe) or (isinstance(value, type) and issubclass(value, _Unsafe))
