"""Commands: LightningCLI with this package's callbacks at hand, and commands that train nothing."""

from __future__ import annotations

import difflib
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning_compress
from lightning_compress.cli.options import OPTIONS
from lightning_compress.cli.pages import GROUPS, overview, training_page
from lightning_compress.cli.refusals import errors_in_a_line, open_pipe
from lightning_compress.cli.screens.noise import hushed

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "start": {
        "init": "write a config with comments for a goal, as faster-cpu",
        "list": "show callbacks, criteria, schedules and all other names",
    },
    "train and evaluate": {
        "fit": "train with the callbacks of a config, report, and write the files",
        "validate": "validate a module, or a checkpoint of it",
        "test": "test a module, or a checkpoint of it",
        "predict": "predict with a module, or with a checkpoint of it",
    },
    "before training": {
        "plan": "predict the effect of the callbacks of a config",
        "sensitivity": "measure each layer compressed alone",
    },
    "many runs": {
        "sweep": "search the ranges of a config over many runs",
        "compare": "put size, latency and metric of many runs side by side",
    },
    "files": {
        "export": "write .onnx, .pte, .tflite, .pt2, .lcz of a run or a checkpoint",
        "profile": "measure bytes, zeros, MACs and latency of a run or a checkpoint",
        "inspect": "show the contents of .lcz, .ckpt and .onnx",
    },
}
"""Title of a group -> its commands, and a line about each."""

_HELP = ("-h", "--help")


def main(args: Sequence[str] | None = None, *, callbacks: Sequence[Any] = ()) -> None:
    """Run one command.

    The config names models, data and callbacks by ``class_path``; classes of this package also by their bare names.
    Modules in the working directory can be named as well.

    Args:
        args: the words after the program's name; by default those of the process.
        callbacks: for the Trainer, beside those of the config.
    """
    words = list(sys.argv[1:] if args is None else args)
    with open_pipe(), hushed():
        _obey(None if args is None else words, words, callbacks)


def _obey(args: list[str] | None, words: list[str], callbacks: Sequence[Any]) -> None:
    first = words[0] if words else "--help"
    if first in _HELP:
        print(overview(lightning_compress.__version__, COMMANDS))
    elif first == "--version":
        print(lightning_compress.__version__)
    elif first in OPTIONS:
        _run(first, words[1:])
    elif first in COMMANDS["train and evaluate"] or first.startswith("-"):
        if _asks_for_a_page(words):
            print(training_page(first))
            return
        with errors_in_a_line():
            _train(args, words, callbacks)
    else:
        _refuse(first)


def _run(name: str, words: Sequence[str]) -> None:
    """Run a command with words of its own, which are read before anything heavy is imported."""
    parser = OPTIONS[name]()
    options, rest = parser.parse_known_args(words)
    takes_rest = name in _SEARCHES
    if rest and not takes_rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    sys.path.insert(0, str(Path.cwd()))
    with errors_in_a_line(list(vars(options).values())):
        if takes_rest:
            _SEARCHES[name](options, rest)
        else:
            _ALONE[name](options)


def _plan(options: Namespace, words: Sequence[str]) -> None:
    from lightning_compress.cli.measures.searches import print_plan

    print_plan(options, words, _command_line())


def _sensitivity(options: Namespace, words: Sequence[str]) -> None:
    from lightning_compress.cli.measures.searches import print_sensitivity

    print_sensitivity(options, words, _command_line())


def _sweep(options: Namespace, words: Sequence[str]) -> None:
    from lightning_compress.cli.sweeps.command import print_sweep

    print_sweep(options, words, _command_line())


def _compare(options: Namespace) -> None:
    from lightning_compress.cli.measures.searches import print_comparison

    print_comparison(options)


def _export(options: Namespace) -> None:
    from lightning_compress.cli.files.exports import export_files

    export_files(options, _command_line)


def _profile(options: Namespace) -> None:
    from lightning_compress.cli.measures.profiles import print_profile

    print_profile(options, _command_line)


def _inspect(options: Namespace) -> None:
    from lightning_compress.cli.files.inspections import print_contents

    print_contents(options)


def _init(options: Namespace) -> None:
    from lightning_compress.cli.goals.command import write_config

    write_config(options)


def _list(options: Namespace) -> None:
    from lightning_compress.cli.catalog.pages import catalog_page

    print(catalog_page(options.name))


_SEARCHES: dict[str, Callable[[Namespace, Sequence[str]], None]] = {
    "plan": _plan,
    "sensitivity": _sensitivity,
    "sweep": _sweep,
}
_ALONE: dict[str, Callable[[Namespace], None]] = {
    "compare": _compare,
    "export": _export,
    "profile": _profile,
    "inspect": _inspect,
    "init": _init,
    "list": _list,
}


def _command_line() -> Any:
    """CompressionCLI of the installed Lightning, of ``lightning`` if both are installed."""
    # These imports take seconds, and other commands do not need them.
    from lightning_compress.lightnings import PACKAGES

    if "lightning.pytorch" in PACKAGES:
        from lightning_compress.cli.lightning import CompressionCLI
    else:
        from lightning_compress.cli.pytorch_lightning import CompressionCLI  # type: ignore[assignment]
    return CompressionCLI


def _asks_for_a_page(words: Sequence[str]) -> bool:
    return len(words) == 2 and words[1] in _HELP


def _train(args: list[str] | None, words: Sequence[str], callbacks: Sequence[Any]) -> None:
    sys.path.insert(0, str(Path.cwd()))
    from lightning_compress.cli.training import RunConfig, print_group

    if len(words) == 3 and words[1] in _HELP:
        print_group(_command_line(), words[0], words[2], [*GROUPS, "all"])
        return
    from lightning_compress.cli.runs.callback import ResumeLine

    # Lightning warns if it gets words although the process has some too.
    _command_line()(
        args=args,
        save_config_callback=RunConfig,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": [*callbacks, ResumeLine(words)]},
        parser_kwargs={"exit_on_error": False},
    )


def _refuse(word: str) -> None:
    names = [name for group in COMMANDS.values() for name in group]
    near = difflib.get_close_matches(word, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    sys.stderr.write(f"lightning-compress: error: need a command out of {', '.join(names)}, got {word!r}{hint}\n")
    sys.exit(2)
