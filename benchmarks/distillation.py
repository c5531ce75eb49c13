"""Distillation on Fashion-MNIST: the accuracy of a ResNet-8 with a ResNet-20 as teacher, and the cost of a step.

    python -m benchmarks.distillation

20,000 images, 3 epochs, SGD, OneCycle 0.2, batch 128, no augmentation; test accuracy after the last step. The trained
teacher and its cached outputs are kept in ``runs/benchmarks/distillation``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from examples.distillation import ResNetClassifier
from examples.fashion_mnist import FashionClassifier, FashionData, LeNet300
from lightning_compress import PruningCallback
from lightning_compress.distillation import Cache, DistillationModule, Item, Term, cache_outputs, initialize, losses

FOLDER = Path("runs/benchmarks/distillation")
RECIPES: dict[str, dict[str, Any]] = {
    "task + 0.3 decoupled": {
        "losses": [Term(losses.Decoupled(alpha=1.0, beta=2.0, temperature=2.0), labels=Item(1))],
        "alpha": 0.3,
        "task_weight": 1.0,
    },
    "soft targets T 2, alpha 0.3": {"losses": [losses.SoftTargets(temperature=2.0)], "alpha": 0.3},
    "soft targets T 4, alpha 0.5": {"losses": [losses.SoftTargets(temperature=4.0)], "alpha": 0.5},
    "correlation, alpha 0.2": {"losses": [losses.Correlation()], "alpha": 0.2},
    "correlation 2 2, alpha 2/3": {"losses": [losses.Correlation(beta=2.0, gamma=2.0)], "alpha": 2 / 3},
}
TAUGHT = RECIPES["correlation 2 2, alpha 2/3"]  # in the tables of step costs and of pruning
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "devices": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "limit_val_batches": 0,
}


def fit(module: LightningModule, seed: int) -> float:
    """Train with the recipe; accuracy on the test images, in percent."""
    trainer = Trainer(**QUIET, max_epochs=3)
    data = FashionData(images=20_000, seed=seed)
    trainer.fit(module, data)
    return 100 * trainer.test(module, data, verbose=False)[0]["test_acc"]


def teacher() -> ResNetClassifier:
    """The trained ResNet-20."""
    if not (path := FOLDER / "teacher.ckpt").exists():
        seed_everything(0, verbose=False)
        module = ResNetClassifier(20)
        print(f"teacher: {fit(module, seed=0):.2f} %", flush=True)
        module.trainer.save_checkpoint(path)
    return ResNetClassifier.load_from_checkpoint(path)


def cached() -> Cache:
    """The teacher's outputs for the training images."""
    if not (path := FOLDER / "cache").exists():
        data = FashionData(images=20_000)
        data.setup("fit")
        return cache_outputs(teacher(), data.train_dataloader(), path)
    return Cache(path)


def accuracies(seeds: int, recipes: Sequence[str]) -> None:
    """Student alone, taught by each recipe, and both once more started from the teacher's first blocks, over seeds."""
    rows: dict[tuple[bool, str], list[float]] = {
        (started, recipe): [] for started in (False, True) for recipe in ("alone", *recipes)
    }
    for seed in range(seeds):
        for (started, recipe), found in rows.items():
            seed_everything(seed, verbose=False)
            module: LightningModule = ResNetClassifier(8)
            if started:
                initialize(module, teacher(), {"model": "model"})
            if recipe in RECIPES:
                module = DistillationModule(module, cached(), **RECIPES[recipe])
            found.append(fit(module, seed))
            print(f"seed {seed} {_name(started, recipe)}: {found[-1]:.2f} %", flush=True)
    print_table({_name(*row): found for row, found in rows.items()})


def _name(started: bool, recipe: str) -> str:
    return f"started, {recipe}" if started else recipe


class Lap(Callback):
    """Process time of each training step, data loading left out."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_batch_start(self, *args: object) -> None:
        self._begin = time.process_time()

    def on_train_batch_end(self, *args: object) -> None:
        self.seconds.append(time.process_time() - self._begin)


def step_seconds(master: LightningModule | Cache | None, data: FashionData, steps: int = 12) -> float:
    """Median time of one step of the student, taught by ``master`` or alone."""
    seed_everything(0, verbose=False)
    student, lap = ResNetClassifier(8), Lap()
    module = student if master is None else DistillationModule(student, master, **TAUGHT)
    trainer = Trainer(**QUIET, max_steps=steps, callbacks=[lap])
    trainer.fit(module, data)
    return statistics.median(lap.seconds[2:])


def costs(rounds: int) -> None:
    """Step time of each teacher against the student alone, in turns: A B C A B C."""
    data = FashionData(images=20_000)
    masters = {"live": teacher(), "cached": cached()}
    ratios: dict[str, list[float]] = {name: [] for name in masters}
    for _ in range(rounds):
        alone = step_seconds(None, data)
        for name, master in masters.items():
            ratios[name].append(step_seconds(master, data) / alone)
    for name, found in ratios.items():
        print(f"step {name:8} {statistics.median(found):.3f} x alone  {[round(one, 3) for one in sorted(found)]}")


def pruned(seeds: int) -> None:
    """LeNet-300-100 pruned to 98 % while it trains (60,000 images, 10 epochs), alone and taught by its dense copy."""
    rows: dict[str, list[float]] = {"dense": [], "pruned": [], "pruned, taught": []}
    for seed in range(seeds):
        dense = None
        for name, found in rows.items():
            seed_everything(seed, verbose=False)
            student = FashionClassifier(LeNet300())
            dense = dense or student
            module = DistillationModule(student, dense, **TAUGHT) if "taught" in name else student
            callbacks = [PruningCallback(sparsity=0.98)] if "pruned" in name else []
            one = Trainer(**QUIET, max_epochs=10, callbacks=callbacks)
            one.fit(module, FashionData(seed=seed))
            found.append(100 * one.test(module, FashionData(), verbose=False)[0]["test_acc"])
    print_table(rows)


def print_table(rows: dict[str, list[float]]) -> None:
    """Mean and standard deviation of each row."""
    for name, found in rows.items():
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        print(f"{name:36} {statistics.mean(found):.2f} +- {spread:.2f} %  {[round(one, 2) for one in found]}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="0: no accuracies")
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--rounds", type=int, default=7, help="0: no step costs")
    parser.add_argument("--pruned", type=int, default=0, help="seeds of the pruned LeNet")
    arguments = parser.parse_args()
    if arguments.rounds:
        costs(arguments.rounds)
    if arguments.seeds:
        accuracies(arguments.seeds, arguments.recipes)
    if arguments.pruned:
        pruned(arguments.pruned)


if __name__ == "__main__":
    main()
