"""What a training step costs with PruningCallback, against none and against Lightning's ModelPruning.

Short fits of the same model take turns (A B C D, A B C D, ...); each is timed over its second epoch. Ratios are to the
plain fit of the same turn, and the median over the turns is shown. "ramp" renews its masks all the time,
"settled" is what follows a ramp.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from statistics import median

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelPruning
from torch import nn

from benchmarks.tables import quiet, show
from examples.fashion_mnist import FashionClassifier, FashionData, LeNet300, ResNet
from lightning_compress import PruningCallback
from lightning_compress.schedules import Constant, Cubic

SPARSITY = 0.9


def main() -> None:
    """Print the cost of a step of LeNet-300-100 and of ResNet-20."""
    quiet()
    data = FashionData()
    rows = [
        *_compare("LeNet-300-100", LeNet300, data, steps=200, turns=9, allowed=1.10),
        *_compare("ResNet-20", lambda: ResNet(20), data, steps=8, turns=5, allowed=1.02),
    ]
    header = ["model", "callback", "CPU ms/step", "CPU ratio", "wall ratio", "allowed"]
    show(f"Cost of a training step, batch 128, {torch.get_num_threads()} thread(s)", header, rows)


def _compare(
    name: str, model: Callable[[], nn.Module], data: FashionData, steps: int, turns: int, allowed: float
) -> list[list[str]]:
    variants: dict[str, Callable[[], list[Callback]]] = {
        "none": list,
        "PruningCallback, ramp": lambda: [PruningCallback(SPARSITY, schedule=Cubic(0.0, 1.0))],
        "PruningCallback, settled": lambda: [PruningCallback(SPARSITY, schedule=Constant())],
        "Lightning's ModelPruning": lambda: [_model_pruning()],
    }
    taken: dict[str, list[tuple[float, float]]] = {variant: [] for variant in variants}
    for _ in range(turns):
        for variant, callbacks in variants.items():
            taken[variant].append(_time(model(), data, callbacks(), steps))
    rows = []
    for variant, times in taken.items():
        cpu, wall = (
            median(mine[kind] / plain[kind] for mine, plain in zip(times, taken["none"], strict=True))
            for kind in (0, 1)
        )
        limit = f"{allowed:.2f}" if variant.startswith("Pruning") else ""
        each = 1000 * median(time for time, _ in times) / steps
        rows.append([name, variant, f"{each:.2f}", f"{cpu:.3f}", f"{wall:.3f}", limit])
    return rows


def _model_pruning() -> ModelPruning:
    return ModelPruning(
        "l1_unstructured", amount=SPARSITY, parameter_names=["weight"], use_lottery_ticket_hypothesis=False
    )


def _time(model: nn.Module, data: FashionData, callbacks: list[Callback], steps: int) -> tuple[float, float]:
    """Process and wall seconds of the second epoch."""
    seed_everything(0, verbose=False)
    stopwatch = _Stopwatch()
    trainer = Trainer(
        max_epochs=2,
        limit_train_batches=steps,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        callbacks=[*callbacks, stopwatch],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    gc.collect()
    trainer.fit(FashionClassifier(model), data)
    return stopwatch.cpu, stopwatch.wall


class _Stopwatch(Callback):
    cpu = wall = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.process_time(), time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.cpu, self.wall = time.process_time() - self._began[0], time.perf_counter() - self._began[1]


if __name__ == "__main__":
    main()
