"""The command ``inspect``: the contents of a file, as tables or as JSON."""

from __future__ import annotations

import json
from argparse import Namespace
from importlib import import_module

from lightning_compress.cli.screens.tables import new_console

__all__ = ["print_contents"]

_READERS = {  # suffix -> file beside this one
    ".lcz": "archives",
    ".ckpt": "checkpoints",
    ".onnx": "graphs",
    ".pte": "programs",
    ".tflite": "programs",
    ".pt2": "programs",
}


def print_contents(options: Namespace) -> None:
    """Print the contents of a file. No code in it runs, and its names are printed as text.

    Raises:
        ValueError: the file is of no known kind, or damaged.
        OSError: the file cannot be read.
    """
    suffix = options.path.suffix
    if suffix not in _READERS:
        raise ValueError(f"need a file that ends in {', '.join(_READERS)}, got {str(options.path)!r}")
    kind = import_module(f"{__package__}.{_READERS[suffix]}")  # an archive is shown without importing Lightning
    contents = kind.read(options.path)
    if options.json:
        print(json.dumps(kind.as_dict(contents), indent=2, default=str))
        return
    new_console().print(*kind.tables(contents))
