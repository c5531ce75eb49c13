"""Refusals: errors that a user can mend, said in one line in place of a traceback."""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

__all__ = ["errors_in_a_line", "open_pipe", "refusal_of", "refuse"]


@contextmanager
def open_pipe() -> Iterator[None]:
    """End in silence where the reader of standard output has ended, as in ``lightning-compress list | head -1``."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        with suppress(OSError):  # Python writes the rest at its exit, which fails again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def refuse(said: str) -> NoReturn:
    """End the command because of a wrong word."""
    sys.stderr.write(f"lightning-compress: error: {said}\n")
    sys.exit(2)


@contextmanager
def errors_in_a_line(words: Sequence[object] = (), rest: Sequence[str] = ()) -> Iterator[None]:
    """Say what a wrong word, or a config that this package refuses, is; errors of other code keep their traceback.

    Args:
        words: paths that the user typed: that such a file cannot be read is said in a line, too.
        rest: the words of ``fit``: the line ends with the place in the config that the error is about.
    """
    try:
        yield
    except argparse.ArgumentError as error:
        from lightning_compress.cli.screens.suggestions import suggestion

        cause = _cause(error)
        refuse(_placed(f"{cause}{suggestion(cause)}", rest, error))
    except (ImportError, OSError, TypeError, ValueError) as error:
        said = _unreadable(error, words) or refusal_of(error)
        if said is None:
            raise
        if getattr(getattr(sys.modules.get("tqdm"), "tqdm", None), "_instances", None):
            sys.stderr.write("\n")  # the cursor stands at the end of a bar
        sys.exit(f"lightning-compress: error: {_placed(said, rest, error)}")


def _placed(said: str, words: Sequence[str], error: BaseException) -> str:
    from lightning_compress.cli.runs.places import placed

    return placed(said, words, error)


def _cause(error: BaseException) -> str:
    """The cause of an error and its place in the config, in one line; jsonargparse lists all alternatives around it."""
    messages = [str(error).splitlines()]
    while error.__cause__ is not None:
        error = error.__cause__
        messages.append(str(error).splitlines())
    places = [first for first, *_ in messages if first.endswith(":")]  # 'Parser key "trainer.callbacks":'
    return " ".join(dict.fromkeys([*places, *map(str.strip, messages[-1])]))


def _unreadable(error: BaseException, words: Sequence[object]) -> str | None:
    if isinstance(error, OSError) and error.filename and str(error.filename) in set(map(str, words)):
        return f"need a path that can be read, got {str(error.filename)!r}: {error.strerror}"
    return None


def refusal_of(error: BaseException | None) -> str | None:
    """The message of an error that this package raised on purpose; None for a fault, or for an error of other code."""
    while error is not None:  # jsonargparse wraps errors of constructors
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        (line,) = traceback.extract_tb(error.__traceback__, limit=-1)
        room = frame.f_globals.get("__name__", "").partition(".")[0]
        if room == "lightning_compress" and (line.line or "").startswith("raise"):
            return str(error)
        error = error.__cause__
    return None
