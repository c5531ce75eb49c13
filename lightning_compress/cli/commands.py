"""Commands: LightningCLI with this package's callbacks at hand, and a look into archives."""

from __future__ import annotations

import argparse
import reprlib
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from lightning_compress.archive import ArchiveContents, ArchivedTensor, ArchiveError, inspect_archive

__all__ = ["contents_table", "main", "printable", "records_table"]

_USAGE = """lightning-compress: compression that happens during training

  lightning-compress fit|validate|test|predict --config config.yaml ...   train or evaluate; see fit --help
  lightning-compress plan --config config.yaml ...                        predict the effect of callbacks, before fit
  lightning-compress sensitivity --config config.yaml ...                 measure each layer compressed alone
  lightning-compress sweep --config config.yaml --study sqlite:///s.db    search the ranges of a config over many runs
  lightning-compress compare runs/*                                       size, latency and metric of many runs
  lightning-compress inspect model.lcz                                    show the tensors and records of an archive
"""


def main(args: Sequence[str] | None = None, *, callbacks: Sequence[Any] = ()) -> None:
    """Run one command.

    The config names models, data and callbacks by ``class_path``; classes of this package also by their bare names.
    Modules in the working directory can be named as well.

    Args:
        args: the words after the program's name; by default those of the process.
        callbacks: for the Trainer, beside those of the config.
    """
    words = list(sys.argv[1:] if args is None else args)
    if not words or words[0] in ("-h", "--help"):
        print(_USAGE)
    elif words[0] == "inspect":
        _inspect(words[1:])
    else:
        sys.path.insert(0, str(Path.cwd()))
        with _errors_in_a_line():
            if words[0] == "compare":
                _compare(words[1:])
            elif words[0] in ("plan", "sensitivity", "sweep"):
                _search(words[0], words[1:])
            else:
                _train(None if args is None else words, callbacks)


def _command_line() -> Any:
    """CompressionCLI of the installed Lightning, of ``lightning`` if both are installed."""
    # These imports take seconds, and `inspect` does not need them.
    from lightning_compress.lightnings import PACKAGES

    if "lightning.pytorch" in PACKAGES:
        from lightning_compress.cli.lightning import CompressionCLI
    else:
        from lightning_compress.cli.pytorch_lightning import CompressionCLI  # type: ignore[assignment]
    return CompressionCLI


def _search(name: str, words: Sequence[str]) -> None:
    from lightning_compress.cli.searches import print_plan, print_sensitivity
    from lightning_compress.cli.sweeps.command import print_sweep

    commands = {"plan": print_plan, "sensitivity": print_sensitivity, "sweep": print_sweep}
    commands[name](words, _command_line())


def _compare(words: Sequence[str]) -> None:
    from lightning_compress.cli.searches import print_comparison

    print_comparison(words)


def _train(words: Sequence[str] | None, callbacks: Sequence[Any]) -> None:
    from lightning_compress.cli.training import RunConfig

    # Lightning warns if it gets words although the process has some too.
    _command_line()(
        args=None if words is None else list(words),
        save_config_callback=RunConfig,
        save_config_kwargs={"overwrite": True},
        trainer_defaults={"callbacks": list(callbacks)} if callbacks else None,
        parser_kwargs={"exit_on_error": False},
    )


@contextmanager
def _errors_in_a_line() -> Iterator[None]:
    """Say what a wrong word, or a config that this package refuses, is; errors of other code keep their traceback."""
    try:
        yield
    except argparse.ArgumentError as error:
        if "\n" in str(error):
            sys.stderr.write(f"{error}\n")
        from lightning_compress.cli.vocabulary import suggestion

        cause = _cause(error)
        sys.stderr.write(f"lightning-compress: error: {cause}{suggestion(cause)}\n")
        sys.exit(2)
    except (ImportError, OSError, TypeError, ValueError) as error:
        said = _refusal(error)
        if said is None:
            raise
        sys.exit(f"lightning-compress: error: {said}")


def _cause(error: BaseException) -> str:
    """The cause of an error and its place in the config, in one line; jsonargparse lists all alternatives around it."""
    messages = [str(error).splitlines()]
    while error.__cause__ is not None:
        error = error.__cause__
        messages.append(str(error).splitlines())
    places = [first for first, *_ in messages if first.endswith(":")]  # 'Parser key "trainer.callbacks":'
    return " ".join(dict.fromkeys([*places, *map(str.strip, messages[-1])]))


def _refusal(error: BaseException | None) -> str | None:
    """The message of an error that this package raised on purpose; None for a fault, or for an error of other code."""
    while error is not None:  # jsonargparse wraps errors of constructors
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        (line,) = traceback.extract_tb(error.__traceback__, limit=-1)
        room = frame.f_globals.get("__name__", "").partition(".")[0]
        if room == "lightning_compress" and (line.line or "").startswith("raise"):
            return str(error)
        error = error.__cause__
    return None


def contents_table(contents: ArchiveContents) -> Table:
    """The tensors of an archive, one by one and in total."""
    table = Table("tensor", "shape", "dtype", "form", title="Archive", title_justify="left")
    for column in ("bytes", "entropy bound", "bits per weight"):
        table.add_column(column, justify="right")
    for tensor in contents.tensors:
        table.add_row(
            printable(tensor.name),
            " x ".join(map(str, tensor.shape)) or "scalar",
            str(tensor.dtype).removeprefix("torch."),
            tensor.form,
            f"{tensor.bytes:,.0f}",
            f"{tensor.entropy_bytes:,.0f}",
            f"{tensor.bits_per_weight:.2f}",
        )
    if contents.record_bytes:
        table.add_row("tensors in the records", "", "", "", f"{contents.record_bytes:,.0f}", "", "")
    count = sum(tensor.count for tensor in contents.tensors if tensor.form != "tied")
    bits = 8 * contents.file_bytes / count if count else 0.0
    table.add_section()
    table.add_row(
        "file", "", "", "", f"{contents.file_bytes:,}", f"{contents.entropy_bytes:,.0f}", f"{bits:.2f}", style="bold"
    )
    table.caption = f"{contents.dense_bytes:,} bytes in memory, {contents.ratio:.1f} times the file"
    table.caption_justify = "left"
    return table


def records_table(contents: ArchiveContents) -> Table:
    """The records of an archive: single values, and the numbers of entries of larger ones."""
    table = Table("record", "content", title="Records", title_justify="left")
    table.add_row("the state dict alone", "is the model" if contents.complete else "is not the model")
    for name, content in _described(contents.records):
        table.add_row(printable(name), printable(content))
    return table


def _described(records: dict[str, Any], depth: int = 3, prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in records.items():
        if isinstance(value, dict) and value and depth > 1:
            yield from _described(value, depth - 1, f"{prefix}{key}.")
        elif isinstance(value, dict | list | tuple):
            yield f"{prefix}{key}", f"{len(value)} entries"
        else:
            yield f"{prefix}{key}", "a tensor" if isinstance(value, ArchivedTensor) else reprlib.repr(value)


def printable(name: str) -> Text:
    r"""Text that a terminal shows as it is: no markup of rich, and no control characters.

    >>> printable("[red]a\x1b[2J[/red]").plain
    '[red]a\\x1b[2J[/red]'
    """
    return Text("".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in name))


def _inspect(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser("lightning-compress inspect", description="Show the tensors of an archive.")
    parser.add_argument("path", type=Path, help="a file written by export(module, 'model.lcz')")
    path = parser.parse_args(words).path
    try:
        contents = inspect_archive(path)
    except (ArchiveError, OSError) as error:
        parser.error(str(error))
    # A pipe has no width; names must not be shortened there.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(contents_table(contents))
    if contents.records:
        console.print(records_table(contents))
