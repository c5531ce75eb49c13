"""What a training step costs with PruningCallback, against none and against Lightning's ModelPruning.

Short fits of the same model take turns (A B C D, A B C D, ...); each is timed over its second epoch. Ratios are to the
plain fit of the same turn, and the median over the turns is shown. "ramp" updates its masks all the time;
"settled" is the cost after a ramp.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelPruning
from torch import nn

from benchmarks.tables import quiet, show
from benchmarks.turns import Stopwatch, in_turns, median_ratio
from examples.fashion_mnist import FashionClassifier, FashionData, LeNet300, ResNet
from lightning_compress import PruningCallback
from lightning_compress.schedules import Constant, Cubic

SPARSITY = 0.9


def main() -> None:
    """Print the cost of a step of LeNet-300-100 and of ResNet-20."""
    quiet()
    data = FashionData()
    rows = [
        *_compare("LeNet-300-100", LeNet300, data, steps=200, turns=9),
        *_compare("ResNet-20", lambda: ResNet(20), data, steps=8, turns=5),
    ]
    header = ["model", "callback", "CPU ms/step", "CPU ratio", "wall ratio"]
    show(f"Cost of a training step, batch 128, {torch.get_num_threads()} thread(s)", header, rows)


def _compare(name: str, model: Callable[[], nn.Module], data: FashionData, steps: int, turns: int) -> list[list[str]]:
    variants: dict[str, Callable[[], list[Callback]]] = {
        "none": list,
        "PruningCallback, ramp": lambda: [PruningCallback(SPARSITY, schedule=Cubic(0.0, 1.0))],
        "PruningCallback, settled": lambda: [PruningCallback(SPARSITY, schedule=Constant())],
        "Lightning's ModelPruning": lambda: [_model_pruning()],
    }
    fits = {variant: partial(_timed, model, data, callbacks, steps) for variant, callbacks in variants.items()}
    rows = []
    taken = in_turns(fits, turns)
    for variant, watches in taken.items():
        cpu = median_ratio([watch.cpu for watch in watches], [watch.cpu for watch in taken["none"]])
        wall = median_ratio([watch.wall for watch in watches], [watch.wall for watch in taken["none"]])
        each = 1000 * median(watch.cpu for watch in watches) / steps
        rows.append([name, variant, f"{each:.2f}", f"{cpu:.3f}", f"{wall:.3f}"])
    return rows


def _model_pruning() -> ModelPruning:
    return ModelPruning(
        "l1_unstructured", amount=SPARSITY, parameter_names=["weight"], use_lottery_ticket_hypothesis=False
    )


def _timed(
    model: Callable[[], nn.Module], data: FashionData, callbacks: Callable[[], list[Callback]], steps: int
) -> Stopwatch:
    seed_everything(0, verbose=False)
    watch = Stopwatch()
    trainer = Trainer(
        max_epochs=2,
        limit_train_batches=steps,
        limit_val_batches=0,
        accelerator="cpu",
        logger=False,
        callbacks=[*callbacks(), watch],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    gc.collect()
    trainer.fit(FashionClassifier(model()), data)
    return watch


if __name__ == "__main__":
    main()
