"""Given files: those that the words of a command name are looked up before anything heavy is imported."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["check_example", "check_file", "check_runs", "configs_of", "missing_file", "options_of"]

_KEYWORDS = {"", "best", "hpc", "last", "none", "null", "registry"}  # of Lightning, in place of a checkpoint


def missing_file(words: Sequence[str]) -> str:
    """The config or checkpoint that the words of ``fit`` name and that is not there, in a sentence; empty for none.

    >>> missing_file(["--config", "nowhere.yaml"])
    "need --config as a file, got 'nowhere.yaml', which does not exist"
    >>> missing_file(["--ckpt_path=best", "--config={seed_everything: 1}"])
    ''
    """
    for name, value in _values(words):
        if _names_config(name, value):
            option = "--config"
        elif name == "--ckpt_path" and "://" not in value and value.lower().partition(":")[0] not in _KEYWORDS:
            option = name
        else:
            continue
        if not Path(value).exists():
            return f"need {option} as a file, got {value!r}, which does not exist"
    return ""


def configs_of(words: Sequence[str]) -> list[Path]:
    """The configs that the words of ``fit`` name, in their order.

    >>> [str(path) for path in configs_of(["fit", "--config", "a.yaml", "--trainer.max_epochs", "3", "-c=b.yaml"])]
    ['a.yaml', 'b.yaml']
    """
    return [Path(value) for name, value in _values(words) if _names_config(name, value)]


def options_of(words: Sequence[str]) -> list[str]:
    """The names of the options among words, without dashes.

    >>> options_of(["fit", "--config", "a.yaml", "--trainer.max_epochs=3"])
    ['config', 'trainer.max_epochs']
    """
    return [word.partition("=")[0].lstrip("-") for word in words if word.startswith("--")]


def check_runs(paths: Sequence[str]) -> None:
    """Refuse folders of runs that are not there.

    Raises:
        FileNotFoundError: a path does not exist.
    """
    for path in paths:
        if not Path(path).exists():
            raise FileNotFoundError(f"need paths of runs, got {path!r}, which does not exist")


def check_example(given: str | None) -> None:
    """Refuse the file of an example input that is not there.

    Raises:
        FileNotFoundError: the path does not exist.
    """
    if given is not None and Path(given).suffix in (".npy", ".pt", ".pth") and not Path(given).exists():
        raise FileNotFoundError(f"need --example as sizes or a file, got {given!r}, which does not exist")


def check_file(path: Path) -> None:
    """Refuse a file that is not there.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: it is a folder.
    """
    if not path.exists():
        raise FileNotFoundError(f"need path as that of a file, got {str(path)!r}: no such file")
    if path.is_dir() and path.suffix == ".mlpackage":
        raise ValueError(f"need path as that of a file, got {str(path)!r}, of Core ML: Xcode shows its contents")
    if path.is_dir():
        raise ValueError(f"need path as that of a file, got {str(path)!r}: it is a folder")


def _names_config(name: str, value: str) -> bool:
    return name in ("--config", "-c") and not re.search(r"[:{\n]", value)  # others are YAML, or an address


def _values(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Option and value of each word ``--option=value``, and of each two words ``--option value``."""
    for word, after in zip(words, [*words, ""][1:], strict=True):
        name, equals, value = word.partition("=")
        if name.startswith("-") and (equals or not after.startswith("--")):
            yield name, value if equals else after
