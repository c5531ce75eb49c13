"""Silence: notes of other libraries, which come to no one's help, are held back while they work."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from tempfile import TemporaryFile
from typing import IO

__all__ = ["silenced"]


@contextmanager
def silenced() -> Iterator[IO[str]]:
    """Hold back warnings, logs, and all that is written to the error stream, by C++ too; on exit all is as before.

    The value is the file of what is held back. After an error it is written: it often holds the cause.
    """
    disabled = logging.root.manager.disable
    sys.stderr.flush()
    with TemporaryFile("w+") as notes, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        stream = os.dup(2)
        os.dup2(notes.fileno(), 2)
        try:
            with redirect_stderr(notes):
                yield notes
        except BaseException:
            notes.seek(0)
            os.write(stream, notes.read().encode())
            raise
        finally:
            os.dup2(stream, 2)
            os.close(stream)
            logging.disable(disabled)
