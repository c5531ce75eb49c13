"""Runs that are killed and resumed."""

from __future__ import annotations

import pickle
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from benchmarks.kills.children import Mark, finish, kill
from tests.support.cases import Case
from tests.support.runs import Randomness, state
from tests.support.toys import build, fit

__all__ = ["Tally", "killed", "newest"]

EVERY = 1, 2, 5
"""Steps between two checkpoints: of the first run, of the second..."""


@dataclass
class Tally:
    """What became of runs that were killed.

    Attributes:
        identical: number of resumed runs that ended in the bits of the uninterrupted one.
        differing: number of other resumed runs.
        torn: number of checkpoints that could not be read; the run was resumed from the one before.
        steps: after which the runs were resumed; 0 where there was no checkpoint yet.
    """

    identical: int = 0
    differing: int = 0
    torn: int = 0
    steps: list[int] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """Number of runs that were killed."""
        return len(self.steps)

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.identical + other.identical,
            self.differing + other.differing,
            self.torn + other.torn,
            self.steps + other.steps,
        )

    def cells(self) -> dict[str, object]:
        """Heading -> cell of a table."""
        return {
            "kills": self.kills,
            "identical": self.identical,
            "differing": self.differing,
            "torn": self.torn,
            "resumed after step": f"{min(self.steps)} to {max(self.steps)}" if self.steps else "",
        }


class Span(Callback):
    """Marks the begin of training, and its end after the callbacks listed before have settled."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.mark()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.mark()


@dataclass
class End:
    """The end of a run: shape and bytes of every number by name, and how the run began."""

    bits: dict[str, tuple[Any, bytes]]
    step: int
    torn: int


def killed(case: Case, kills: int, random: Random) -> Tally:
    """Kill so many runs of a case at random instants, resume each, and compare with the run that is not killed."""
    with tempfile.TemporaryDirectory() as folder:
        whole, seconds = finish(partial(_run, case, Path(folder), EVERY[0]))
    tally = Tally()
    while tally.kills < kills:
        with tempfile.TemporaryDirectory() as folder:
            run = partial(_run, case, Path(folder), EVERY[tally.kills % len(EVERY)])
            if kill(run, seconds, random):
                end, _ = finish(run)
                same = end.bits == whole.bits
                tally += Tally(same, not same, end.torn, [end.step])
    return tally


def newest(folder: Path) -> tuple[Path | None, int]:
    """The newest checkpoint in a folder that can be read, and how many newer ones cannot."""
    paths = sorted(folder.glob("*.ckpt"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for torn, path in enumerate(paths):
        if _is_whole(path):
            return path, torn
    return None, len(paths)


def _is_whole(path: Path) -> bool:
    try:
        torch.load(path, weights_only=True)
    except (EOFError, RuntimeError, pickle.UnpicklingError):
        return False
    return True


def _run(case: Case, folder: Path, every: int, mark: Mark) -> End:
    """Train, from the newest checkpoint in the folder on if there is one: the same command again."""
    tempfile.tempdir = str(folder)  # Lightning writes a checkpoint there, and renames it
    path, torn = newest(folder)
    step = torch.load(path, weights_only=True)["global_step"] if path else 0
    module = build(kind=case.kind)
    saving = ModelCheckpoint(folder, every_n_train_steps=every, save_last=True)
    fit(module, *case.callbacks(), Randomness(), Span(mark), saving, ckpt_path=path)
    bits = {name: (tensor.shape, tensor.numpy().tobytes()) for name, tensor in state(module).items()}
    return End(bits, step, torn)
