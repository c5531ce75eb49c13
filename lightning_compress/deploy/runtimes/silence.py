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

__all__ = ["hushed", "silenced"]

_LINES = {
    "onnxscript.optimizer._constant_folding": "Evaluation failed: ",  # a constant that is not folded
    "torch.onnx._internal.exporter._registration": "torchvision is not installed. Skipping ",
}


@contextmanager
def hushed() -> Iterator[None]:
    """Hold back lines of exporters that help no one, each by its text and its place, and nothing else."""
    quiet = [(logging.getLogger(name), _Without(start)) for name, start in _LINES.items()]
    for logger, one in quiet:
        logger.addFilter(one)
    with warnings.catch_warnings():
        # torch copies a class of its own that is deprecated.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning, r"copyreg|torch\.")
        # Recurrent layers of torch write the list of their weights anew.
        warnings.filterwarnings("ignore", r"The tensor attributes? self\..*_flat_weights\[", UserWarning)
        try:
            yield
        finally:
            for logger, one in quiet:
                logger.removeFilter(one)


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


class _Without(logging.Filter):
    def __init__(self, start: str) -> None:
        super().__init__()
        self._start = start

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(self._start)
