"""Pages of the docs run as programs from one seed, in processes that have imported Lightning and this package."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
import traceback
import warnings
from pathlib import Path

import torch

__all__ = ["run_program"]

_IMPORTED = ["lightning", *(f"lightning_compress.{room}" for room in ("pruning", "quantization", "report", "search"))]


def run_program(path: Path) -> str:
    """Run a program in its folder, in a process of its own: nothing, or, if it failed, its standard error."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED)
    process = context.Process(target=_run, args=(path,))
    process.start()
    process.join()
    return "" if process.exitcode == 0 else path.with_suffix(".err").read_text() or f"exit code {process.exitcode}"


def _run(path: Path) -> None:
    os.chdir(path.parent)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for name, stream in ((".out", sys.stdout), (".err", sys.stderr)):
        with path.with_suffix(name).open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = [path.name]
    sys.path.insert(0, str(path.parent))
    warnings.simplefilter("ignore")
    try:
        runpy.run_path(path.name, run_name="__main__")
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
