"""Memory and time of updates: peak memory of a fit, an export and a load, in multiples of the weights.

One linear layer without bias, SGD without momentum. Each row runs in a process of its own. The peak is the highest
resident size during ``fit``, from its first batch on, less that of the plain fit; of an export and a load, the highest
resident size less that before. Masks, codebooks and grids are updated in every step.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelPruning
from torch import Tensor, nn

from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from lightning_compress import NM, PruningCallback, QATCallback, WeightSharingCallback, export, load_archive
from lightning_compress.pruning import criteria
from lightning_compress.schedules import Constant, Linear

STEPS = 6
Key = TypeVar("Key", bound=Hashable)


class OneLayer(LightningModule):
    """A square linear layer that maps noise to zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(width, width, bias=False)

    def forward(self, rows: Tensor) -> Tensor:
        output: Tensor = self.layer(rows)
        return output

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.01)


class Watch(Callback):
    """Peak memory from the first batch on, and the seconds of each step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._began = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        forget_peak()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *rest: object) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *rest: object) -> None:
        self.seconds.append(time.perf_counter() - self._began)


@dataclass(frozen=True)
class Use:
    """Bytes of the peak, and seconds of a step, an export or a load."""

    peak: float
    seconds: float


def fits() -> dict[str, Callable[[], list[Callback]]]:
    """Name -> callbacks of a fit."""
    ramp = {"schedule": Linear(0.0, 1.0), "every_n_steps": 1}
    return {
        "plain": list,
        "Lightning's ModelPruning": lambda: [
            ModelPruning("l1_unstructured", amount=0.5, use_lottery_ticket_hypothesis=False)
        ],
        "pruning": lambda: [PruningCallback(0.9, **ramp)],
        "pruning, Taylor scores": lambda: [PruningCallback(0.9, criterion=criteria.taylor, **ramp)],
        "pruning, 2:4": lambda: [PruningCallback(pattern=NM(2, 4), **ramp)],
        "QAT, 8-bit weights": lambda: [QATCallback(8, activation_bits=None, schedule=Constant(), every_n_steps=1)],
        "sharing, 16 values": lambda: [WeightSharingCallback(16, schedule=Linear(0.0, 0.5), every_n_steps=1)],
        "pruning and QAT": lambda: [
            PruningCallback(0.9, **ramp),
            QATCallback(8, activation_bits=None, schedule=Constant(), every_n_steps=1),
        ],
    }


def weights(kind: str, width: int) -> OneLayer:
    """A layer with weights of a kind: dense, 90 % zeros, on an 8-bit grid, or of 16 values."""
    module = OneLayer(width)
    weight = module.layer.weight.data
    if kind == "90 % zeros":
        weight[torch.rand_like(weight) < 0.9] = 0
    elif kind == "8-bit grid":
        scale = weight.abs().amax(1, keepdim=True) / 127
        weight.div_(scale).round_().mul_(scale)
    elif kind == "16 values":
        scale = weight.abs().amax() / 8
        weight.div_(scale).floor_().add_(0.5).mul_(scale)
    return module


KINDS = ("dense", "90 % zeros", "8-bit grid", "16 values")


def main() -> None:
    """Print the tables for a layer of ``--millions`` weights."""
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, default=25.0, help="weights of the layer")
    parser.add_argument("--only", default="", help="rows whose names contain this text")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each row; medians are shown")
    given = parser.parse_args()
    width = round((given.millions * 1e6) ** 0.5)
    size = 4 * width * width
    names = [name for name in fits() if given.only in name or name == "plain"]
    used = medians({name: [apart(fit, name, width) for _ in range(given.rounds)] for name in names})
    plain = used["plain"]
    rows = [
        [name, f"{(use.peak - plain.peak) / size:.2f}", f"{use.seconds / plain.seconds:.1f}"]
        for name, use in used.items()
    ]
    show(
        f"fit, {width * width / 1e6:.0f} M weights", ["callbacks", "peak beyond plain / weights", "step / plain"], rows
    )
    rows = []
    for kind in (kind for kind in KINDS if given.only in kind):
        both = {step: [apart(step, kind, width) for _ in range(given.rounds)] for step in (write, read_back)}
        written, read = medians(both).values()
        rows.append(
            [
                kind,
                f"{written.peak / size:.2f}",
                f"{written.seconds:.1f}",
                f"{read.peak / size:.2f}",
                f"{read.seconds:.1f}",
            ]
        )
    header = ["weights", "export, peak / weights", "s", "load, peak / weights", "s"]
    show(f".lcz, {width * width / 1e6:.0f} M weights", header, rows)


def medians(uses: Mapping[Key, Sequence[Use]]) -> dict[Key, Use]:
    """Median memory and seconds of each row."""
    return {
        key: Use(median(use.peak for use in each), median(use.seconds for use in each)) for key, each in uses.items()
    }


def fit(name: str, width: int) -> Use:
    """Memory and seconds of the second half of a fit."""
    watch = Watch()
    data = torch.utils.data.DataLoader(
        torch.randn(STEPS, width, generator=torch.Generator().manual_seed(0)), batch_size=1
    )
    trainer(*fits()[name](), watch, max_epochs=1).fit(OneLayer(width), data)
    return Use(peak(), median(watch.seconds[STEPS // 2 :]))


def write(kind: str, width: int) -> Use:
    """Memory and seconds of an export."""
    module = weights(kind, width)
    with tempfile.TemporaryDirectory() as folder:
        export(OneLayer(8), Path(folder) / "first.lcz")  # loads code
        forget_peak()
        before, began = peak(), time.perf_counter()
        export(module, Path(folder) / "m.lcz")
        return Use(peak() - before, time.perf_counter() - began)


def read_back(kind: str, width: int) -> Use:
    """Memory and seconds of a load, the tensors included."""
    with tempfile.TemporaryDirectory() as folder:
        apart(_write_at, kind, width, folder)
        export(OneLayer(8), Path(folder) / "first.lcz")
        load_archive(Path(folder) / "first.lcz")
        forget_peak()
        before, began = peak(), time.perf_counter()
        load_archive(Path(folder) / "m.lcz")
        return Use(peak() - before, time.perf_counter() - began)


def _write_at(kind: str, width: int, folder: str) -> Use:
    export(weights(kind, width), Path(folder) / "m.lcz")
    return Use(0, 0.0)


def apart(measure: Callable[..., Use], *args: object) -> Use:
    """The use that ``measure`` finds in a fresh process."""
    context = get_context("spawn")
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(measure, args, there))
    process.start()
    there.close()
    use: Use = here.recv()
    process.join()
    return use


def _answer(measure: Callable[..., Use], args: tuple[object, ...], answer: Connection) -> None:
    quiet()
    torch.set_num_threads(1)
    answer.send(measure(*args))


def forget_peak() -> None:
    """Let the highest resident size of this process be the present one; Linux."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """The highest resident size of this process since :func:`forget_peak`, in bytes; Linux."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
