"""State dicts: how the one in a file differs from that of a module, in a sentence; also where the Trainer loads it."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable, Collection, Mapping
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

__all__ = ["checkpoint_in", "difference", "explain_loading"]

_MISSING, _UNEXPECTED = "Missing key(s) in state_dict:", "Unexpected key(s) in state_dict:"
_VERSION = "pytorch-lightning_version"  # key that a checkpoint of either Lightning has
_SIZES = re.compile(
    r"size mismatch for (\S+): copying a param with shape torch.Size\((.*?)\) from checkpoint, the shape in current "
    r"model is torch.Size\((.*?)\)"
)


def difference(error: BaseException) -> str | None:
    """The listing of ``load_state_dict`` as a sentence, with its probable reason; None for an error of other code.

    >>> from torch import nn
    >>> try:
    ...     nn.Linear(2, 1).load_state_dict(nn.Linear(3, 1, bias=False).state_dict())
    ... except RuntimeError as error:
    ...     print(difference(error))
    the file lacks 1 name of the module (bias), and has 1 tensor of another shape (weight: [1, 3], not [1, 2])
    """
    text = str(error)
    if not isinstance(error, RuntimeError) or not text.startswith("Error(s) in loading state_dict"):
        return None
    missing, unexpected = (_names(text, heading) for heading in (_MISSING, _UNEXPECTED))
    sizes = [f"{name}: {theirs}, not {mine}" for name, theirs, mine in _SIZES.findall(text)]
    found = []
    if missing:
        found.append(f"lacks {_counted(missing, 'name')} of the module ({_first(missing)})")
    if unexpected:
        found.append(f"has {_counted(unexpected, 'name')} that the module lacks ({_first(unexpected)})")
    if sizes:
        found.append(f"has {_counted(sizes, 'tensor')} of another shape ({_first(sizes)})")
    if not found:
        return " ".join(text.split())[:300]
    return f"the file {', and '.join(found)}"


def explain_loading(strategy: Any) -> None:
    """Let a strategy refuse in a sentence, the next time, a file that a run cannot go on from.

    That is a file that is no checkpoint of the Trainer (an archive, a state dict), or one of another model.

    Args:
        strategy: of a Trainer that is being set up; what it does else stays as it is.
    """
    for name, explained in (("load_checkpoint", _read), ("load_model_state_dict", _load)):
        vars(strategy).setdefault(name, partial(explained, strategy))


def checkpoint_in(
    path: str | PathLike[str], read: Callable[[], Any], entries: Collection[str] = (_VERSION,)
) -> Mapping[str, Any]:
    """The content of a file that is given as ``ckpt_path``.

    Args:
        path: the file.
        read: reads it.
        entries: those that it has to have. A strategy that loads the weights by itself leaves the state dict out.

    Raises:
        ValueError: the file is no checkpoint of the Trainer, or cannot be read.
    """
    need = f"need a checkpoint that the Trainer wrote as ckpt_path, got {str(path)!r}, "
    if str(path).endswith(".lcz"):
        raise ValueError(
            f"{need}an archive, which holds a model without the state of its run: load it by load_compressed(..., "
            f"{Path(path).name!r}), and leave ckpt_path out, or pass a .ckpt of the run"
        )
    try:
        content = read()
    except Exception as error:  # of many kinds, most of which do not name the file
        if not Path(path).is_file():
            raise
        if not zipfile.is_zipfile(path):
            raise ValueError(f"{need}which is none, or not whole: name another") from error
        reason = f"{type(error).__name__}: {str(error).strip()}".splitlines()[0]
        raise ValueError(f"{need}which is damaged, or holds objects that are not read: {reason[:200]}") from error
    if not (isinstance(content, Mapping) and set(entries) <= content.keys()):
        raise ValueError(
            f"{need}which is none: load a state dict by load_state_dict of the module, and leave ckpt_path out"
        )
    return content


def _read(strategy: Any, path: str | PathLike[str], *args: Any, **kwargs: Any) -> Any:
    vars(strategy).pop("load_checkpoint", None)
    return checkpoint_in(path, partial(strategy.load_checkpoint, path, *args, **kwargs))


def _load(strategy: Any, *args: Any, **kwargs: Any) -> None:
    vars(strategy).pop("load_model_state_dict", None)
    try:
        strategy.load_model_state_dict(*args, **kwargs)
    except RuntimeError as error:
        found = difference(error)
        if found is None:
            raise
        raise ValueError(
            f"need a checkpoint of this model as ckpt_path, got one of another: {found}; pass the module with the "
            "arguments that it was trained with"
        ) from error


def _counted(names: list[str], noun: str) -> str:
    return f"{len(names)} {noun}{'s' if len(names) > 1 else ''}"


def _first(names: list[str]) -> str:
    return ", ".join(names[:2]) + (", ..." if len(names) > 2 else "")


def _names(text: str, heading: str) -> list[str]:
    return [name for line in text.splitlines() if heading in line for name in re.findall(r'"([^"]*)"', line)]
