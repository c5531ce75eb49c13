"""The part that runs in the environment of a peer: it trains, and leaves files for the judge.

``python -m benchmarks.peers.worker ROW PEER JOBS RESULTS`` reads a JSON list of jobs and appends one JSON line each.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import torch

from benchmarks.peers.recipe import RECIPES, Data, Recipe, Run, data_of, quick

__all__ = ["Job", "lines_of_user_code", "work"]

Job = dict[str, Any]
"""``kind`` (start, train, resume or time), ``folder`` for files, ``quick``, ``seed``, ``sparsity``, ``turns``."""


@dataclass(frozen=True)
class _Bench:
    """What a job needs: the peer, the recipe, the data, and the file that the runs start from."""

    peer: ModuleType
    recipe: Recipe
    data: Data
    start: Path | None

    def run(self, seed: int, short: bool = False, **files: Path) -> Run:
        return Run(self.recipe.short() if short else self.recipe, self.data, seed, start=self.start, **files)

    def train(self, run: Run, job: Job) -> Any:
        return self.peer.train(run, job["sparsity"]) if "sparsity" in job else self.peer.train(run)


def work(row: str, name: str, jobs: Sequence[Job], results: Path) -> None:
    """Do the jobs of a peer one by one; an error becomes the result of its job."""
    for job in jobs:
        began = time.perf_counter()
        try:
            peer = import_module(f"benchmarks.peers.{row}.{name}")
            found = _KINDS[job["kind"]](_bench(peer, row, job), job)
        except Exception as error:  # the error that a user would see is the result
            traceback.print_exc()
            first = (str(error).splitlines() or [""])[0]
            found = {"error": f"{type(error).__name__}: {first[:160]}"}
        found["seconds"] = round(time.perf_counter() - began, 1)
        with results.open("a") as file:
            file.write(json.dumps({**job, **found}) + "\n")


def _bench(peer: ModuleType, row: str, job: Job) -> _Bench:
    recipe = RECIPES["start" if job["kind"] == "start" else row]
    recipe = quick(recipe) if job["quick"] else recipe
    start = Path(job["start"]) if "start" in job else None
    return _Bench(peer, recipe, data_of(recipe), start)


def _start(bench: _Bench, job: Job) -> dict[str, Any]:
    """The dense checkpoint from which the row of quantization starts."""
    run = bench.run(job["seed"])
    bench.peer.plain(run)
    torch.save(run.model.state_dict(), Path(job["folder"]) / "start.pt")
    return {}


def _train(bench: _Bench, job: Job) -> dict[str, Any]:
    folder = Path(job["folder"])
    trained = bench.train(bench.run(job["seed"], keep=folder / "kept.ckpt"), job)
    if "sparsity" in job:
        torch.save(trained.state_dict(), folder / "state.pt")
    else:
        trained(folder)
    return {}


def _resume(bench: _Bench, job: Job) -> dict[str, Any]:
    """Go on with the checkpoint that a training run has kept."""
    folder = Path(job["folder"])
    trained = bench.train(bench.run(job["seed"], resume=folder / "kept.ckpt"), job)
    torch.save(trained.state_dict(), folder / "resumed.pt")
    return {}


def _time(bench: _Bench, job: Job) -> dict[str, Any]:
    """Short runs take turns, A B A B; the ratio is the median of the ratios of a turn."""
    ratios, steps = [], []
    for _ in range(job["turns"]):
        mine, dense = (bench.run(job["seed"], short=True) for _ in range(2))
        bench.train(mine, job)
        bench.peer.plain(dense)
        ratios.append(mine.seconds_per_step / dense.seconds_per_step)
        steps.append(1000 * mine.seconds_per_step)
    return {"step_ratio": median(ratios), "step_ratios": ratios, "milliseconds": median(steps)}


_KINDS: dict[str, Callable[[_Bench, Job], dict[str, Any]]] = {
    "start": _start,
    "train": _train,
    "resume": _resume,
    "time": _time,
}


def lines_of_user_code(row: str, name: str) -> int:
    """Lines between the markers ``# user code`` and ``# end`` in the file of a peer, without empty ones."""
    counted, inside = 0, False
    for line in (Path(__file__).parent / row / f"{name}.py").read_text().splitlines():
        if line.strip() in ("# user code", "# end"):
            inside = line.strip() == "# user code"
        elif inside and line.strip():
            counted += 1
    return counted


if __name__ == "__main__":
    torch.set_num_threads(1)
    work(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), Path(sys.argv[4]))
