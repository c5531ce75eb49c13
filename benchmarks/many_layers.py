"""Fits of a model with many small layers, plain and with each method: CPU seconds and their ratio.

Linear layers of 16 x 16 weights in a row, SGD with momentum; masks and codebooks are updated every five steps. The
fits take turns (A B C D, A B C D, ...); the first, which loads code, is not counted. Ratios are to the plain fit of
the same turn, and medians over the turns are shown.

Run: ``python -m benchmarks.many_layers [--layers 2000] [--steps 20] [--turns 3] [--only NAME]``
"""

from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn

from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from benchmarks.turns import Stopwatch, in_turns, median_ratio
from lightning_compress import NM, PruningCallback, QATCallback, WeightSharingCallback

WIDTH, BATCH = 16, 32

METHODS: dict[str, Callable[[], list[Callback]]] = {
    "plain": list,
    "pruning": lambda: [PruningCallback(0.9, every_n_steps=5)],
    "pruning, 2:4": lambda: [PruningCallback(pattern=NM(2, 4), every_n_steps=5)],
    "QAT, 8-bit weights": lambda: [QATCallback(8, activation_bits=None)],
    "QAT, 8-bit weights and activations": lambda: [QATCallback(8)],
    "sharing, 16 values": lambda: [WeightSharingCallback(16, every_n_steps=5)],
}


class ManyLayers(LightningModule):
    """Residual linear layers."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = x + 0.01 * torch.relu(layer(x))
        return x

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        return self(batch).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3, momentum=0.9)


def main() -> None:
    """Print the table."""
    quiet()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=20, help="of each fit")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--only", default="", help="methods whose names contain this text")
    given = parser.parse_args()
    names = [name for name in METHODS if given.only in name or name == "plain"]
    fits = {name: partial(fit, METHODS[name], given.layers, given.steps) for name in names}
    for callbacks in METHODS.values():
        fit(callbacks, 2, 2)
    taken = in_turns(fits, given.turns)
    plain = [watch.cpu for watch in taken["plain"]]
    rows = [
        [name, f"{median(cpu):.2f}", f"{median_ratio(cpu, plain):.2f}", f"{min(cpu) / min(plain):.2f}"]
        for name, watches in taken.items()
        for cpu in [[watch.cpu for watch in watches]]
    ]
    header = ["callback", "CPU s", "ratio", "ratio of the fastest"]
    show(f"Fits of {given.layers} layers, {given.steps} steps, {torch.get_num_threads()} thread(s)", header, rows)


def fit(callbacks: Callable[[], list[Callback]], layers: int, steps: int) -> Stopwatch:
    """The seconds of a whole fit."""
    module, rows = ManyLayers(layers), torch.randn(BATCH * steps, WIDTH, generator=torch.Generator().manual_seed(0))
    data = torch.utils.data.DataLoader(rows, BATCH)
    gc.collect()
    watch, cpu, wall = Stopwatch(), time.process_time(), time.perf_counter()
    trainer(*callbacks(), max_epochs=1).fit(module, data)
    watch.cpu, watch.wall = time.process_time() - cpu, time.perf_counter() - wall
    return watch


if __name__ == "__main__":
    main()
