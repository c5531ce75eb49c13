"""Hostile files: ``python -m benchmarks.hostile_files [archives] [records]``.

Archives are changed at random, and their checksums made right again, so that every parser meets the change. Records in
checkpoints get entries of other names, kinds and sizes. A file is refused, or it loads: any other error counts as a
crash, and ends the command with it.
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import torch
from torch import Tensor

from benchmarks.kills.children import Mark, finish
from benchmarks.tables import quiet, show
from lightning_compress import ChannelPruningCallback, LowRankCallback, QATCallback, RecordError, load_compressed
from lightning_compress.archive import ArchiveError, read_archive, save_archive
from lightning_compress.schedules import Linear
from tests.support.hostile import mutated, mutated_record, sealed
from tests.support.toys import Digits, Residual, build, fit

MOST = 1 << 20
"""Bytes that the tensors of a changed archive may take: ``read_archive(max_bytes=...)``."""
RAMP: dict[str, Any] = {"schedule": Linear(0.1, 0.6), "every_n_steps": 3}
RECORDS: dict[str, tuple[type[Digits], Callable[[], Any]]] = {
    "quantization": (Digits, QATCallback),
    "channels": (Residual, lambda: ChannelPruningCallback(0.15, round_to=4, remove_blocks=True, **RAMP)),
    "low rank": (Digits, lambda: LowRankCallback(**RAMP)),
}


def main(archives: int = 1_000_000, records: int = 3_000) -> None:
    """Print a table."""
    quiet()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    rows = [["archives", *finish(lambda mark: _archives(archives, mark))[0]]]
    rows += [
        [f"records of {name}", *finish(lambda mark, n=name: _records(n, records // len(RECORDS), mark))[0]]
        for name in RECORDS
    ]
    show("Hostile files", ["", "files", "refused", "loaded", "longest, ms", "growth, MiB"], rows)


def _archives(count: int, mark: Mark) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.lcz"
        save_archive(_tensors(), path, {"grids": {"w": {"scale": torch.rand(5), "low": -7}}, "shapes": [1, (2, 3)]})
        data, chance = path.read_bytes(), Random(0)

        def load() -> None:
            path.write_bytes(sealed(data[:14] + mutated(data[14:-8], chance)))
            read_archive(path, max_bytes=MOST)

        return _tally(load, ArchiveError, count, mark)


def _records(name: str, count: int, mark: Mark) -> list[str]:
    kind, callback = RECORDS[name]
    with tempfile.TemporaryDirectory() as folder:
        path, chance = Path(folder) / "m.ckpt", Random(0)
        fit(build(kind=kind), callback()).save_checkpoint(path, weights_only=True)
        checkpoint = torch.load(path, weights_only=True)
        ((key, record),) = checkpoint["compression_structures"].items()

        def load() -> None:
            torch.save({**checkpoint, "compression_structures": {key: mutated_record(record, chance)}}, path)
            load_compressed(kind, path)

        return _tally(load, RecordError, count, mark)


def _tally(load: Callable[[], None], refusal: type[Exception], count: int, mark: Mark) -> list[str]:
    """Cells: files, refused, loaded, the longest time, and the growth of memory after the first hundred."""
    refused, longest, early = 0, 0.0, 0
    mark()
    for number in range(count):
        began = time.perf_counter()
        try:
            load()
        except refusal:
            refused += 1
        longest = max(longest, time.perf_counter() - began)
        if number == min(100, count - 1):
            early = _peak()
    mark()
    return [f"{count:,}", f"{refused:,}", f"{count - refused:,}", f"{longest * 1e3:.0f}", f"{_peak() - early:.0f}"]


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def _tensors() -> dict[str, Tensor]:
    """Small tensors of every form: a grid, few values, zeros, other numbers, a tie, a mask."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(20, 12, generator=generator)
    step = weight.abs().amax(1, keepdim=True) / 7
    return {
        "grid": (weight / step).round() * step,
        "values": torch.tensor([0.1, -0.7, 0.33])[torch.randint(3, (9, 9), generator=generator)],
        "zeros": torch.where(torch.rand(200, generator=generator) < 0.1, torch.randn(200, generator=generator), 0.0),
        "dense": weight,
        "tied": weight,
        "number": torch.tensor(7),
        "mask": torch.rand(40, generator=generator) < 0.5,
    }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
