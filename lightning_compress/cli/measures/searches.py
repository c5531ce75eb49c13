"""Commands that train nothing: ``plan``, ``sensitivity`` and ``compare``."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning_compress.cli.measures.choices import write_choice
from lightning_compress.cli.runs.prepared import Prepared
from lightning_compress.drafts import draft_of
from lightning_compress.report.pictures.styles import new_figure
from lightning_compress.search import Logged, Sensitivity, compare, plan, sensitivity
from lightning_compress.training import WeightCompression

__all__ = ["check_outputs", "print_comparison", "print_plan", "print_sensitivity", "save_plot"]


def print_plan(options: Namespace, words: Sequence[str], command_line: Any) -> None:
    """Print the plan of a config; see :func:`~lightning_compress.search.plan`.

    Args:
        options: those of ``plan`` itself.
        words: those of ``fit``.
        command_line: class of CompressionCLI.
    """
    prepared = Prepared.of(words, command_line)
    planned = plan(prepared.module, prepared.callbacks, prepared.example(prepared.callbacks))
    _print(planned, options.json)


def print_sensitivity(options: Namespace, words: Sequence[str], command_line: Any) -> None:
    """Measure and print the sensitivities of a config; see :func:`~lightning_compress.search.sensitivity`.

    Args:
        options: those of ``sensitivity`` itself.
        words: those of ``fit``.
        command_line: class of CompressionCLI.
    """
    check_outputs(options, "path", "csv", "plot", "choice")
    if (options.choice is None) != (options.drop is None):
        raise ValueError("need --drop and --choice together: the largest drop of a layer alone, and the file to write")
    prepared = Prepared.of(words, command_line)
    if not prepared.loaded:
        sys.stderr.write("these are the weights of a new model: pass --ckpt_path to measure a trained one\n")
    found = sensitivity(
        prepared.module,
        prepared.held_out(),
        methods=[callback for callback in prepared.callbacks if isinstance(callback, WeightCompression)],
        metric=None if options.metric is None else Logged(options.metric),
        mode=options.mode,
        examples=options.examples,
        fisher_examples=options.fisher_examples,
        path=options.path,
    )
    _write(found, options)
    if options.choice:
        write_choice(found, options.drop, prepared.written(), options.choice)
    _print(found, options.json)


def print_comparison(options: Namespace) -> None:
    """Compare runs by their reports; see :func:`~lightning_compress.search.compare`."""
    check_outputs(options, "plot")
    suffix = f".{options.suffix.removeprefix('.')}"
    found = compare(options.paths, metric=options.metric, mode=options.mode, suffix=suffix)
    if options.plot:
        save_plot(found.draw(), options.plot)
    _print(found, options.json)


def _write(found: Sensitivity, options: Namespace) -> None:
    if options.csv:
        with draft_of(Path(options.csv)) as draft:
            draft.write_text(found.to_csv(), encoding="utf-8")
    if options.plot:
        save_plot(found.draw(), options.plot)


def save_plot(figure: Any, path: str) -> None:
    """Write a picture of matplotlib.

    Args:
        figure: a ``matplotlib.figure.Figure``.
        path: the file; its suffix is the kind of the picture.
    """
    with draft_of(path) as draft:
        figure.savefig(draft, dpi=120)


def check_outputs(options: Namespace, *names: str) -> None:
    """Refuse files that cannot be written, before anything is measured.

    Args:
        options: those of the command.
        names: of the options that are files to write; ``"plot"`` is a picture of matplotlib.

    Raises:
        FileNotFoundError: the folder of a file does not exist.
        ImportError: matplotlib is not installed.
        ValueError: matplotlib writes no file of this suffix.
    """
    for name in names:
        path = getattr(options, name)
        if path is None:
            continue
        if not Path(path).absolute().parent.is_dir():
            folder = str(Path(path).parent)
            raise FileNotFoundError(f"need --{name} in a folder that exists, got {str(path)!r}: make {folder!r}")
        if name == "plot":
            suffix, known = Path(path).suffix.removeprefix("."), sorted(new_figure().canvas.get_supported_filetypes())
            if suffix not in known:
                raise ValueError(f"need --plot as a file with one of the suffixes {', '.join(known)}, got {path!r}")


def _print(result: Any, as_json: bool) -> None:
    print(json.dumps(result.to_dict(), indent=2) if as_json else result)
