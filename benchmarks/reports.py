"""The time that a report adds to a run, for models of many small layers.

Linear layers of 16 x 16 in a row, two epochs of four batches, with and without `CompressionReport`. The numbers of
layers are words of the command: `python -m benchmarks.reports 100 500 2000`.
"""

from __future__ import annotations

import contextlib
import io
import sys
import time
from tempfile import TemporaryDirectory

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from lightning_compress import CompressionReport, PruningCallback

_LAYERS = (100, 500, 2000)


class Deep(LightningModule):
    """Many layers in a row.

    Args:
        layers: their number.
    """

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.net = nn.Sequential(*(nn.Linear(16, 16) for _ in range(layers)))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self.net(batch[0]).square().mean()

    def forward(self, inputs: Tensor) -> Tensor:
        return self.net(inputs)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-3)


def main() -> None:
    """Print the table."""
    quiet()
    rows = []
    with TemporaryDirectory() as folder:
        _seconds(10, CompressionReport(folder))  # what is imported and made once
    for layers in map(int, sys.argv[1:]) if sys.argv[1:] else _LAYERS:
        without = _seconds(layers)
        with TemporaryDirectory() as folder:
            reported = _seconds(layers, CompressionReport(folder))
        rows.append((f"{layers:,}", f"{without:.1f}", f"{reported:.1f}", f"{reported - without:.1f}"))
    show("A run of eight steps, seconds", ("layers", "without a report", "with a report", "the report"), rows)


def _seconds(layers: int, *callbacks: Callback) -> float:
    """Seconds on the processor: other programs on the machine do not count."""
    data = DataLoader(TensorDataset(torch.rand(64, 16)), 16)
    begin = time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        trainer(*callbacks, PruningCallback(0.5), max_epochs=2).fit(Deep(layers), data)
    return time.process_time() - begin


if __name__ == "__main__":
    main()
