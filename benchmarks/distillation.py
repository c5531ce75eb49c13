"""Distillation on Fashion-MNIST: the accuracy of a ResNet-8 with a ResNet-20 as teacher, and the cost of a step.

    python -m benchmarks.distillation

20,000 images, 3 epochs, SGD, OneCycle 0.2, batch 128, no augmentation; test accuracy after the last step. One teacher
learned from the same 20,000 images, another from all 60,000. The trained teachers and their cached outputs are kept in
``runs/benchmarks/distillation``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from examples.distillation import ResNetClassifier
from examples.fashion_mnist import FashionClassifier, FashionData, LeNet300
from lightning_compress import PruningCallback
from lightning_compress.distillation import Cache, DistillationModule, Item, Term, cache_outputs, initialize, losses

FOLDER = Path("runs/benchmarks/distillation")
RECIPES: dict[str, dict[str, Any]] = {
    "defaults": {},
    "defaults, true labels": {"losses": [Term(losses.Decoupled(beta=2.0, temperature=2.0), labels=Item(1))]},
    "task + 0.3 soft targets T 2": {"losses": [losses.SoftTargets(temperature=2.0)]},
    "soft targets T 2, alpha 0.3": {"losses": [losses.SoftTargets(temperature=2.0)], "alpha": 0.3},
    "soft targets T 4, alpha 0.9": {"losses": [losses.SoftTargets(temperature=4.0)], "alpha": 0.9},
    "correlation, alpha 0.2": {"losses": [losses.Correlation()], "alpha": 0.2},
    "correlation 2 2, alpha 2/3": {"losses": [losses.Correlation(beta=2.0, gamma=2.0)], "alpha": 2 / 3},
}
TAUGHT = RECIPES["defaults"]  # in the tables of step costs and of pruning
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


TEACHERS = {"20,000 images": 20_000, "60,000 images": 60_000}
"""What a teacher learned from."""
STARTS = "random weights", "the teacher's first blocks"
"""Where a student begins."""


def fit(module: LightningModule, seed: int, images: int = 20_000) -> float:
    """Train with the recipe; accuracy on the test images, in percent."""
    trainer = Trainer(**QUIET, max_epochs=3)
    data = FashionData(images=images, seed=seed)
    trainer.fit(module, data)
    return 100 * trainer.test(module, data, verbose=False)[0]["test_acc"]


def teacher(images: int = 20_000) -> ResNetClassifier:
    """The ResNet-20 that learned from so many images."""
    if not (path := FOLDER / f"teacher_{images}.ckpt").exists():
        seed_everything(0, verbose=False)
        module = ResNetClassifier(20)
        print(f"teacher of {images:,} images: {fit(module, 0, images):.2f} %", flush=True)
        module.trainer.save_checkpoint(path)
    return ResNetClassifier.load_from_checkpoint(path)


def cached(images: int = 20_000) -> Cache:
    """The outputs of the teacher that learned from so many images, for the student's training images."""
    if not (path := FOLDER / f"cache_{images}").exists():
        data = FashionData(images=20_000)
        data.setup("fit")
        return cache_outputs(teacher(images), data.train_dataloader(), path)
    return Cache(path)


def accuracies(seeds: Sequence[int], recipes: Sequence[str], teachers: Sequence[str], starts: Sequence[str]) -> None:
    """Student alone and taught by each recipe, from random weights and from the teacher's first blocks, over seeds."""
    rows: dict[tuple[str, str, str], list[float]] = {
        (master, start, recipe): [] for master in teachers for start in starts for recipe in ("alone", *recipes)
    }
    for seed in seeds:
        for (master, start, recipe), found in rows.items():
            has_teacher = start != STARTS[0] or recipe in RECIPES
            found.append(_accuracy(seed, start, recipe, TEACHERS[master] if has_teacher else 0))
            print(f"seed {seed}, teacher of {master}, {start}, {recipe}: {found[-1]:.2f} %", flush=True)
    print_table({", ".join(row): found for row, found in rows.items()})


@cache
def _accuracy(seed: int, start: str, recipe: str, images: int) -> float:
    """Accuracy of a student; ``images`` are those of its teacher, 0 where no teacher takes part."""
    seed_everything(seed, verbose=False)
    module: LightningModule = ResNetClassifier(8)
    if start != STARTS[0]:
        initialize(module, teacher(images), {"model": "model"})
    if recipe in RECIPES:
        module = DistillationModule(module, cached(images), **RECIPES[recipe])
    return fit(module, seed)


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
        print(f"{name:72} {statistics.mean(found):.2f} +- {spread:.2f} %  {[round(one, 2) for one in found]}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="none: no accuracies")
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--teachers", nargs="*", choices=TEACHERS, default=list(TEACHERS))
    parser.add_argument("--starts", nargs="*", choices=STARTS, default=list(STARTS))
    parser.add_argument("--rounds", type=int, default=7, help="0: no step costs")
    parser.add_argument("--pruned", type=int, default=0, help="seeds of the pruned LeNet")
    arguments = parser.parse_args()
    if arguments.rounds:
        costs(arguments.rounds)
    if arguments.seeds:
        accuracies(arguments.seeds, arguments.recipes, arguments.teachers, arguments.starts)
    if arguments.pruned:
        pruned(arguments.pruned)


if __name__ == "__main__":
    main()
