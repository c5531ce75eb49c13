"""The exact global threshold: find_threshold, a tensor at a time, against torch.cat + kthvalue.

Weights are normal, in 100 tensors of different scales; the scores are magnitudes, 90 % are masked. Each method runs
in a process of its own. Extra memory is the highest resident size of the process less that before the search.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from benchmarks.tables import show
from lightning_compress.pruning.thresholds import find_threshold

FRACTION, TENSORS = 0.9, 100


def main() -> None:
    """Print time and memory for 20 and 200 million weights."""
    rows = []
    for millions in (20, 200):
        found = {method.__name__: _apart(method, millions * 1_000_000) for method in (streamed, concatenated)}
        if len({value for value, _, _ in found.values()}) != 1:
            raise RuntimeError(f"need one threshold, got {found}")
        for name, (value, seconds, extra) in found.items():
            rows.append([f"{millions} M", name, f"{value:.7f}", f"{seconds:.2f}", f"{extra / (4e6 * millions):.1%}"])
    header = ["weights", "method", "threshold", "CPU s", "extra memory / weights"]
    show("Exact global threshold at 90 %", header, rows)


def streamed(weights: list[Tensor]) -> float:
    """find_threshold."""
    return find_threshold(lambda: (weight.abs() for weight in weights), FRACTION).value


def concatenated(weights: list[Tensor]) -> float:
    """All magnitudes in one tensor, then its k-th smallest."""
    magnitudes = torch.cat([weight.abs() for weight in weights])
    return float(magnitudes.kthvalue(round(FRACTION * len(magnitudes))).values)


def _apart(method: Callable[[list[Tensor]], float], total: int) -> tuple[float, float, int]:
    """Threshold, process seconds and extra bytes of ``method`` in a fresh process."""
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(method, total, there))
    process.start()
    there.close()
    answer: tuple[float, float, int] = here.recv()
    process.join()
    return answer


def _measure(method: Callable[[list[Tensor]], float], total: int, answer: Connection) -> None:
    generator = torch.Generator().manual_seed(0)
    weights = [torch.empty(total // TENSORS).normal_(0, 0.01 + 0.001 * i, generator=generator) for i in range(TENSORS)]
    method([weights[0][:1000], weights[1][:1000]])  # first calls load code
    before, began = _peak(), time.process_time()
    value = method(weights)
    answer.send((value, time.process_time() - began, _peak() - before))


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kilobytes on Linux


if __name__ == "__main__":
    main()
