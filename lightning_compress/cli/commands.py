"""Commands: LightningCLI with this package's callbacks at hand, and commands that train nothing."""

from __future__ import annotations

import difflib
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning_compress
from lightning_compress.cli.options import (
    Parser,
    compare_parser,
    completion_parser,
    export_parser,
    init_parser,
    inspect_parser,
    list_parser,
    plan_parser,
    profile_parser,
    sensitivity_parser,
    sweep_parser,
)
from lightning_compress.cli.pages import GROUPS, WORDS, overview, training_page
from lightning_compress.cli.refusals import errors_in_a_line, open_pipe, refuse
from lightning_compress.cli.runs.folders import Source, source_of
from lightning_compress.cli.runs.given import check_example, check_file, check_runs, missing_file
from lightning_compress.cli.screens.completion import FILES, Completed, completed, completion_script
from lightning_compress.cli.screens.noise import hushed

__all__ = ["COMMANDS", "Command", "main"]

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
    command = _BY_NAME.get(first)
    if first in _HELP:
        groups = {title: {name: one.line for name, one in group.items()} for title, group in COMMANDS.items()}
        print(overview(lightning_compress.__version__, groups))
    elif first == "--version":
        print(lightning_compress.__version__)
    elif command and command.parser and command.run:
        _run(command.parser(), command.run, words[1:], takes_rest=command.takes_rest)
    elif command and len(words) == 2 and words[1] in _HELP:
        print(training_page(first, command.line))
    elif command or first.startswith("-"):
        _refuse_missing(words)
        with errors_in_a_line(rest=words):
            _train(args, words, callbacks)
    else:
        _refuse_command(first)


def _run(parser: Parser, run: Callable[..., None], words: Sequence[str], *, takes_rest: bool) -> None:
    """Run a command with words of its own, which are read before anything heavy is imported."""
    options, rest = parser.parse_known_args(words)
    if rest and not takes_rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    _refuse_missing(rest)
    sys.path.insert(0, str(Path.cwd()))
    with errors_in_a_line(list(vars(options).values()), rest):
        run(options, *([rest] if takes_rest else []))


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
    check_runs(options.paths)
    from lightning_compress.cli.measures.searches import print_comparison

    print_comparison(options)


def _export(options: Namespace) -> None:
    source = _source(options)
    from lightning_compress.cli.files.exports import export_files

    export_files(options, source, _command_line)


def _profile(options: Namespace) -> None:
    source = _source(options)
    from lightning_compress.cli.measures.profiles import print_profile

    print_profile(options, source, _command_line)


def _source(options: Namespace) -> Source:
    """The files of a trained module, looked up before anything heavy is imported."""
    check_example(options.example)
    return source_of(options.path, options.config, options.model)


def _inspect(options: Namespace) -> None:
    check_file(options.path)
    from lightning_compress.cli.files.inspections import print_contents

    print_contents(options)


def _init(options: Namespace) -> None:
    from lightning_compress.cli.goals.command import write_config

    write_config(options)


def _list(options: Namespace) -> None:
    from lightning_compress.cli.catalog.pages import catalog_page

    print(catalog_page(options.name))


def _completion(options: Namespace) -> None:
    from lightning_compress.cli.catalog.kinds import KINDS
    from lightning_compress.cli.catalog.pages import names_of

    names = {kind: names_of(kind) for kind in KINDS}
    known = {
        "--format": [name.removeprefix(".") for name in names["formats"] if name.startswith(".")],
        "KIND|NAME": dict.fromkeys([*KINDS, *(name for kind in KINDS for name in names[kind])]),
    }
    common = {word.split()[0]: FILES if "FILE" in word else () for word in WORDS if "NAME" not in word}
    rest = {**common, "--trainer.max_epochs": (), "--trainer.callbacks+": tuple(names["callbacks"])}
    commands = {
        name: completed(one.line, one.parser(), known, rest if one.takes_rest else {})
        if one.parser
        else Completed(one.line, {"--help": (*GROUPS, "all"), **rest})
        for name, one in _BY_NAME.items()
    }
    print(completion_script(options.shell, commands), end="")


@dataclass(frozen=True)
class Command:
    """A command.

    Attributes:
        line: its purpose.
        parser: a new parser of its own words; None for the commands of LightningCLI.
        run: obeys, with the options that the parser has read.
        takes_rest: whether it takes the words of ``fit`` too.
    """

    line: str
    parser: Callable[[], Parser] | None = None
    run: Callable[..., None] | None = None
    takes_rest: bool = False


COMMANDS = {
    "start": {
        "init": Command("write a config with comments for a goal, as faster-cpu", init_parser, _init),
        "list": Command("show callbacks, criteria, schedules and all other names", list_parser, _list),
        "completion": Command("print a script for bash, fish or zsh", completion_parser, _completion),
    },
    "train and evaluate": {
        "fit": Command("train with the callbacks of a config, report, and write the files"),
        "validate": Command("validate a module, or a checkpoint of it"),
        "test": Command("test a module, or a checkpoint of it"),
        "predict": Command("predict with a module, or with a checkpoint of it"),
    },
    "before training": {
        "plan": Command("predict the effect of the callbacks of a config", plan_parser, _plan, takes_rest=True),
        "sensitivity": Command(
            "measure each layer compressed alone", sensitivity_parser, _sensitivity, takes_rest=True
        ),
    },
    "many runs": {
        "sweep": Command("search the ranges of a config over many runs", sweep_parser, _sweep, takes_rest=True),
        "compare": Command("put size, latency and metric of many runs side by side", compare_parser, _compare),
    },
    "files": {
        "export": Command("write .onnx, .pte, .tflite, .pt2, .lcz of a run or a checkpoint", export_parser, _export),
        "profile": Command("measure bytes, zeros, MACs and latency of a run or a checkpoint", profile_parser, _profile),
        "inspect": Command("show the contents of .lcz, .ckpt, .onnx, .pte, ...", inspect_parser, _inspect),
    },
}
"""Title of a group -> its commands."""

_MEANT = {"train": "fit", "evaluate": "validate"}
"""Words of other tools -> command."""

_BY_NAME = {name: command for group in COMMANDS.values() for name, command in group.items()}


def _command_line() -> Any:
    """CompressionCLI of the installed Lightning, of ``lightning`` if both are installed."""
    # These imports take seconds, and other commands do not need them.
    from lightning_compress.lightnings import PACKAGES

    if "lightning.pytorch" in PACKAGES:
        from lightning_compress.cli.lightning import CompressionCLI
    else:
        from lightning_compress.cli.pytorch_lightning import CompressionCLI  # type: ignore[assignment]
    return CompressionCLI


def _train(args: list[str] | None, words: Sequence[str], callbacks: Sequence[Any]) -> None:
    sys.path.insert(0, str(Path.cwd()))
    from lightning_compress.cli.training import RunConfig, print_group

    if len(words) == 3 and words[1] in _HELP:
        print_group(_command_line(), words[0], words[2], [*GROUPS, "all"])
        return
    from lightning_compress.cli.runs.callback import ResumeLine

    _command_line()(
        args=args,
        save_config_callback=RunConfig,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": [*callbacks, ResumeLine(words)]},
        parser_kwargs={"exit_on_error": False},
    )


def _refuse_missing(words: Sequence[str]) -> None:
    if said := missing_file(words):
        refuse(said)


def _refuse_command(word: str) -> None:
    near = difflib.get_close_matches(word, [*_BY_NAME, *_MEANT], n=1)
    hint = f"; did you mean {_MEANT.get(near[0], near[0])!r}?" if near else ""
    refuse(f"need a command out of {', '.join(_BY_NAME)}, got {word!r}{hint}")
