"""The command ``export``: model files of a run, a checkpoint or an archive, each checked after it was written."""

from __future__ import annotations

import sys
import warnings
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning_compress
from lightning_compress.cli.refusals import refusal_of
from lightning_compress.cli.runs.folders import Source
from lightning_compress.cli.runs.trained import Trained, in_options
from lightning_compress.deploy import export
from lightning_compress.deploy.export import FORMATS, find_writer
from lightning_compress.deploy.formats import Writer, size_on_disk
from lightning_compress.example_inputs import line_of
from lightning_compress.messages import wrapped

__all__ = ["USES", "export_files"]

_PACKAGE = Path(lightning_compress.__file__).parent

USES = {
    ".lcz": "load_compressed(cls, path) in Python; the smallest file",
    ".onnx": "ONNX Runtime, OpenVINO, TensorRT and others",
    ".pt2": "torch.export.load(path), without the class",
    ".safetensors": "safetensors.torch.load_file(path), the state dict",
    ".pte": "ExecuTorch, on phones",
    ".tflite": "LiteRT, on phones and microcontrollers",
    ".mlpackage": "Core ML, on Apple devices",
}
"""Suffix -> the programs that read such a file."""


def export_files(options: Namespace, source: Source, command_line: Callable[[], Any]) -> None:
    """Write the files, print their sizes and uses, and end with code 1 if one of them failed.

    Args:
        options: those of ``export``.
        source: the files of the module.
        command_line: gives the class of CompressionCLI.

    Raises:
        ValueError: a format is unknown, or the module cannot be loaded.
        ImportError: a package of a format is not installed.
    """
    suffixes = dict.fromkeys(f".{name.strip().removeprefix('.')}" for name in options.format.split(","))
    writers = [_writer(suffix) for suffix in suffixes]
    folder = _folder(options.output, source)
    paths = [folder / f"{source.weights.stem}{writer.suffix}" for writer in writers]
    if source.weights in paths:
        raise ValueError(
            f"need --output as another folder, got {str(folder)!r}, where {source.weights.name} would be lost"
        )
    trained = Trained.of(source, options.example, command_line)
    needy = [writer.suffix for writer in writers if writer.needs_example]
    if needy and trained.example is None:
        raise ValueError(
            f"need an example input to write {', '.join(needy)}, got none ({trained.lacking}): pass --example with the "
            "sizes of an input, such as --example 1,3,224,224"
        )
    print(f"{source.weights}, as {type(trained.module).__name__}")
    if source.others:
        print(f"  not taken: {', '.join(path.name for path in source.others)}; pass the path of one to export it")
    written = [_written(trained, path, writer) for path, writer in zip(paths, writers, strict=True)]
    failures = [failure for failure, _ in written]
    for path, (failure, notes) in zip(paths, written, strict=True):
        if failure is None:
            print(f"{path}  {size_on_disk(path):,} bytes, checked\n  for {USES[path.suffix]}")
        print("".join(f"{wrapped(f'  {note}')}\n" for note in notes), end="", flush=True)
    for path, failure in zip(paths, failures, strict=True):
        if failure is not None:
            sys.stderr.write(f"lightning-compress: error: {path.name} is not written: {failure}\n")
    if any(failures):
        sys.exit(1)


def _writer(suffix: str) -> Writer:
    if suffix == ".":
        raise ValueError(f"need --format out of {', '.join(FORMATS)}, got an empty name")
    try:
        writer = find_writer(suffix)
    except ValueError as error:
        raise ValueError(str(error).replace("need path with a suffix", "need --format", 1)) from None
    writer.require()
    return writer


def _folder(output: Path | None, source: Source) -> Path:
    folder = output or source.weights.parent
    if output is None and folder.name == "checkpoints":
        return folder.parent
    if folder.is_file():
        raise ValueError(f"need a folder as --output, got {str(folder)!r}, which is a file")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _written(trained: Trained, path: Path, writer: Writer) -> tuple[str | None, list[str]]:
    """Write one file: the error in a line, if that fails, and the warnings of this package; others are given anew."""
    notes, failure = [], None
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        try:
            export(trained.module, path, trained.example, writer=writer)
        except Exception as error:
            failure = in_options(refusal_of(error) or line_of(error))
    for one in warned:
        if one.category is UserWarning and Path(one.filename).is_relative_to(_PACKAGE):
            notes.append(str(one.message))
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
    return failure, notes
