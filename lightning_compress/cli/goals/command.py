"""The command ``init``: writes the config of a goal."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

from lightning_compress.cli.goals.configs import DEFAULT_METRIC, GOALS, PLACES, PROJECT, config_of, project

__all__ = ["write_config"]


def write_config(options: Namespace) -> None:
    """Write the config of a goal to a new file, and say what to do next.

    Raises:
        ValueError: the file exists, or its folder does not; or the direction of no metric is given; or the model or the
            data is no dotted path; or ``--example`` meets a model, data or a project that exist.
    """
    _check_example(options)
    for name, stands_in in PLACES.items():
        if not re.fullmatch(r"[^\W\d]\w*(\.[^\W\d]\w*)+", given := getattr(options, name)):
            raise ValueError(f"need --{name} as the dotted path of a class, such as {stands_in}, got {given!r}")
    path = Path(options.output)
    text = config_of(
        options.goal,
        path=str(path),
        model=options.model,
        data=options.data,
        metric=options.metric,
        mode=options.mode or "min",
    )
    watched = options.metric or (DEFAULT_METRIC if f"monitor: {DEFAULT_METRIC}\n" in text else "")
    if options.mode and not options.metric:
        raise ValueError(
            f"need --metric for --mode {options.mode}, got none: a config of {options.goal} watches {watched or 'none'}"
        )
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
        if options.example:
            Path(PROJECT).write_text(project(), encoding="utf-8")
    except FileExistsError as error:
        raise ValueError(
            f"need a path of a new file as --output, got {str(path)!r}, which exists: pass --output other.yaml"
        ) from error
    except FileNotFoundError as error:
        raise ValueError(f"need --output in a folder that exists, got {str(path)!r}") from error
    extra = GOALS[options.goal].extra
    unnamed = [] if options.example else _unnamed(options)
    steps = [
        *([f"pip install 'lightning-compress[{extra}]'"] if extra else []),
        *([f"name your {' and '.join(unnamed)} in {path}"] if unnamed else []),
        *([f"let validation log {watched}, or name another metric in {path}"] if watched else []),
        *([f"set max_drop in {path}, in the unit of {watched}"] if "max_drop:" in text else []),
        f"lightning-compress plan --config {path}",
        f"lightning-compress fit --config {path}" + (" --weights trained.ckpt" if "--weights" in text else ""),
    ]
    print(f"{path} and {PROJECT} are written. Next:" if options.example else f"{path} is written. Next:")
    print("\n".join(f"  {number}. {step}" for number, step in enumerate(steps, 1)))


def _unnamed(options: Namespace) -> list[str]:
    """Those of model and data that stand for the user's."""
    return [name for name, stands_in in PLACES.items() if getattr(options, name) == stands_in]


def _check_example(options: Namespace) -> None:
    if not options.example:
        return
    if given := [f"--{name} {getattr(options, name)}" for name in PLACES if name not in _unnamed(options)]:
        raise ValueError(f"need --example without --model and --data, whose place it takes, got {' '.join(given)}")
    if Path(PROJECT).exists():
        raise ValueError(
            f"need a folder without {PROJECT} for --example, got one with it, which stays as it is: name yours by "
            "--model and --data"
        )
