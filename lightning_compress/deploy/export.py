"""Export: one function; the suffix of the path is the format."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib import import_module
from os import PathLike
from pathlib import Path
from pkgutil import iter_modules

from torch import nn

from lightning_compress.arguments import check_path
from lightning_compress.deploy import writers
from lightning_compress.deploy.checks import check_answers
from lightning_compress.deploy.formats import Writer
from lightning_compress.deploy.runtimes.silence import hushed
from lightning_compress.drafts import draft_of
from lightning_compress.example_inputs import (
    ExampleInput,
    check_example_input,
    check_runs,
    device_of,
    evaluating,
    on_device,
    unwrapped,
)
from lightning_compress.training.copies import merged_copy

__all__ = ["FORMATS", "export", "find_writer", "find_writers", "writers_of"]


def export(
    module: nn.Module,
    path: str | PathLike[str],
    example_input: ExampleInput | None = None,
    *,
    writer: Writer | None = None,
) -> Path:
    """Write ``module`` to a file, and check that the file computes, or holds, the same as the module.

    ==============  =============================================================================================
    ``.lcz``        the state dict and the carried records, lossless and small; checked bit for bit
    ``.onnx``       the computation, with a free batch size; checked by running it in ONNX Runtime
    ``.pt2``        the computation as a :class:`torch.export.ExportedProgram`; checked by loading and running it
    ``.pte``        the computation for phones, as a program of ExecuTorch; checked by running it in ExecuTorch
    ``.tflite``     the computation for phones and microcontrollers; checked by running it in LiteRT
    ``.mlpackage``  the computation for Apple devices; checked by running it in Core ML where macOS is, elsewhere its
                    weights are compared
    ==============  =============================================================================================

    ``.safetensors`` is the state dict for other programs, bit for bit. With ``writer=CompressedTensors()`` a model of
    transformers becomes a folder of packed integers, which transformers and vLLM load.

    The computation is that of evaluation mode; the module itself is left as it is. Weights that were compressed with
    their adapters are written merged. Outputs may differ by
    ``tolerance * max(1, max |output|)``, with ``tolerance`` 1e-4, or 4 units of the last place of a shorter dtype.

    A module that was trained by ``QATCallback`` is written with integer weights and explicit quantize and dequantize
    operations. An activation near the middle between two integers may be rounded the other way in another runtime, so
    the mean difference of its outputs may be 1 % of the largest output, or as large as the effect of rounding all
    activations.

    The file is written aside, checked, flushed to the disk and then renamed: an earlier file at ``path`` is replaced
    only by a good one, whole. A symbolic link stays, and the file that it points to is replaced. A folder is replaced
    as a whole, and only if it holds nothing but an earlier export.

    Args:
        module: a trained module; of a LightningModule, ``forward`` is exported.
        path: the file.
        example_input: input of ``forward``: a tensor, a tuple of arguments or a mapping of keyword arguments, with the
            batch as first dimension of every tensor; by default ``module.example_input_array``, and not needed for
            ``.lcz``.
        writer: a writer with options, or one of your own; by default the one for the suffix of ``path``.

    Returns:
        The path.

    Raises:
        ValueError: the suffix is unknown, ``example_input`` is needed and missing, ``forward`` does not run on it,
            gives NaN or other outputs each time, or cannot be traced; or the file fails its check.
        TypeError: ``module``, ``example_input`` or ``writer`` is of another kind, or the state dict holds something
            other than tensors.
        ImportError: a package that the format needs is not installed.
        OSError: the folder of ``path`` does not exist, or something stands at ``path`` that is not replaced: a folder
            where the format is a file, a file where it is a folder, or a folder with files of another kind.

    >>> import tempfile
    >>> export(nn.Linear(4, 2), Path(tempfile.mkdtemp()) / "m.lcz").name
    'm.lcz'
    """
    check_path(path=path)
    module, path = merged_copy(unwrapped(module)), Path(path)
    writer = find_writer(path.suffix) if writer is None else _checked(writer, path)
    writer.check_place(path)
    writer.require()
    if example_input is None and writer.needs_example:
        example_input = getattr(module, "example_input_array", None)
    if example_input is not None:
        check_example_input(example_input)
    elif writer.needs_example:
        raise ValueError(f"need example_input to write {path.suffix}, got None: pass export(..., example_input=x)")
    with hushed(), draft_of(path) as draft, evaluating(module):
        example = on_device(example_input, device_of(module)) if writer.needs_example else None
        if example is not None:
            check_runs(module, example)
            check_answers(module, example, writer.outputs, writer.suffix)
        writer.write(writer.prepare(module, example), example, draft)
        writer.check(module, example, draft)
    return path


def find_writer(suffix: str) -> Writer:
    """The writer of files that end in ``suffix``.

    Raises:
        ValueError: no file of ``deploy/writers`` defines one.

    >>> find_writer(".pt2")
    Program(compiled=False, fusible=False)
    >>> find_writer(".onx")
    Traceback (most recent call last):
    ValueError: need path with a suffix out of ..., got '.onx'; did you mean '.onnx'?
    """
    found = find_writers()
    if suffix in found:
        return found[suffix]
    near = difflib.get_close_matches(suffix.lower(), found, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"need path with a suffix out of {', '.join(found)}, got {suffix!r}{hint}")


def writers_of(formats: Sequence[str | Writer]) -> list[Writer]:
    """The writers of a list of suffixes and writers.

    Raises:
        TypeError: ``formats`` is no list, or holds something else.
        ValueError: a suffix is unknown, or two are the same.

    >>> writers_of([".lcz", ".lcz"])
    Traceback (most recent call last):
    ValueError: need formats of different suffixes, got '.lcz' twice: both would write one file
    """
    if isinstance(formats, str) or not isinstance(formats, Sequence):
        one = formats if isinstance(formats, str | Writer) else ".lcz"
        raise TypeError(f"need formats as a list, got {formats!r}: write [{one!r}]")
    writers = [_writer(given) for given in formats]
    suffixes = [writer.suffix for writer in writers]
    for suffix in suffixes:
        if suffixes.count(suffix) > 1:
            raise ValueError(f"need formats of different suffixes, got {suffix!r} twice: both would write one file")
    return writers


def _writer(given: str | Writer) -> Writer:
    if isinstance(given, Writer):
        return given
    if not isinstance(given, str):
        raise TypeError(f"need formats as suffixes or writers, got {given!r}")
    try:
        return find_writer(given)
    except ValueError as error:
        raise ValueError(str(error).replace("need path with a suffix", "need formats", 1)) from None


def find_writers() -> dict[str, Writer]:
    """Suffix -> writer with default options, for each writer that a file of ``deploy/writers`` defines."""
    files = [import_module(f"{writers.__name__}.{file.name}") for file in iter_modules(writers.__path__)]
    kinds = [kind for file in files for kind in vars(file).values() if _is_writer(kind, file.__name__)]
    found = [kind() for kind in kinds]
    return {writer.suffix: writer for writer in sorted(found, key=lambda one: one.suffix) if writer.suffix}


def _is_writer(kind: object, file: str) -> bool:
    return isinstance(kind, type) and issubclass(kind, Writer) and kind.__module__ == file


FORMATS = tuple(find_writers())
"""Suffixes of the files that :func:`export` writes."""


def _checked(writer: Writer, path: Path) -> Writer:
    if not isinstance(writer, Writer):
        raise TypeError(f"need writer as an object of a subclass of Writer, got {writer!r}")
    if writer.suffix and path.suffix != writer.suffix:
        raise ValueError(f"need a path that ends in {writer.suffix} for {writer!r}, got {str(path)!r}")
    return writer
