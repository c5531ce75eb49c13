"""The command ``init``: writes the config of a goal."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path

from lightning_compress.cli.goals.configs import DEFAULT_METRIC, GOALS, PLACES, config_of

__all__ = ["write_config"]


def write_config(options: Namespace) -> None:
    """Write the config of a goal to a new file, and say what to do next.

    Raises:
        ValueError: the file exists, or its folder does not; or the direction of no metric is given; or the model or the
            data is no dotted path.
    """
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
    except FileExistsError as error:
        raise ValueError(
            f"need a path of a new file as --output, got {str(path)!r}, which exists: pass --output other.yaml"
        ) from error
    except FileNotFoundError as error:
        raise ValueError(f"need --output in a folder that exists, got {str(path)!r}") from error
    extra = GOALS[options.goal].extra
    unnamed = [name for name, stands_in in PLACES.items() if getattr(options, name) == stands_in]
    steps = [
        *([f"pip install 'lightning-compress[{extra}]'"] if extra else []),
        *([f"name your {' and '.join(unnamed)} in {path}"] if unnamed else []),
        *([f"let validation log {watched}, or name another metric in {path}"] if watched else []),
        *([f"set max_drop in {path}, in the unit of {watched}"] if "max_drop:" in text else []),
        f"lightning-compress plan --config {path}",
        f"lightning-compress fit --config {path}" + (" --weights trained.ckpt" if "--weights" in text else ""),
    ]
    print(f"{path} is written. Next:")
    print("\n".join(f"  {number}. {step}" for number, step in enumerate(steps, 1)))
