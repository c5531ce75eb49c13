"""Long runs: ``python -m benchmarks.long_runs [steps] [fits]``.

One run of many steps, and many fits of one process: the growth of memory, of open files, and of hooks that callbacks
have left on the module and its optimizers. Memory is that after the first tenth, and at the end.
"""

from __future__ import annotations

import gc
import sys
import warnings
from typing import Any

import lightning as L
import psutil
import torch

from benchmarks.kills.children import Mark, finish
from benchmarks.tables import quiet, show
from tests.support.cases import CASES, Case
from tests.support.toys import build, fit

METHODS = "pruning", "2:4", "sharing", "8 bits", "removed channels", "low rank", "pruning and sharing", "taught"


def main(steps: int = 10_000, fits: int = 100) -> None:
    """Print a table."""
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    header = [
        "",
        "memory of a long run, MiB",
        "growth, MiB",
        "memory of many fits, MiB",
        "growth, MiB",
        "files",
        "hooks",
    ]
    rows = []
    for name in METHODS:
        case = CASES[name]
        long, _ = finish(lambda mark, c=case: _long(c, steps, mark))
        many, _ = finish(lambda mark, c=case: _many(c, fits, mark))
        rows.append([name, *long, *many])
        print(*rows[-1], file=sys.stderr)
    show(f"{steps} steps of one run, {fits} fits of one process", header, rows)


class Growth(L.Callback):
    """Memory after a tenth of the steps and after the last."""

    def __init__(self, steps: int) -> None:
        self.marks, self.memory = (steps // 10, steps), []  # type: tuple[int, int], list[float]

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step in self.marks:
            self.memory.append(_memory())


def _long(case: Case, steps: int, mark: Mark) -> list[str]:
    growth = Growth(steps)
    mark()
    fit(build(kind=case.kind), *case.callbacks(), growth, max_epochs=-1, max_steps=steps)
    mark()
    first, last = growth.memory
    return [f"{last:.0f}", f"{last - first:.1f}"]


def _many(case: Case, fits: int, mark: Mark) -> list[str]:
    process, memory, files, hooks = psutil.Process(), 0.0, 0, 0
    mark()
    for number in range(fits):
        module = build(kind=case.kind)
        fit(module, *case.callbacks())
        if number == fits // 10:
            memory, files, hooks = _memory(), process.num_fds(), _hooks(module)
    mark()
    now = _memory()
    return [f"{now:.0f}", f"{now - memory:.1f}", f"{process.num_fds() - files:+d}", f"{_hooks(module) - hooks:+d}"]


def _hooks(module: L.LightningModule) -> int:
    """Hooks that a fit has left on its module, quantizers among them, and on its optimizer."""
    owners = [*module.modules(), module.optimizers().optimizer]  # type: ignore[union-attr]
    return sum(len(found) for owner in owners for key, found in vars(owner).items() if key.endswith("_hooks"))


def _memory() -> float:
    gc.collect()
    return psutil.Process().memory_info().rss / 2**20


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
