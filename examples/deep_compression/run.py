"""Deep Compression in one fit: a LeNet on Fashion-MNIST, pruned, with shared values, entropy coded.

    python -m examples.deep_compression.run --model lenet300 --seeds 3
    python -m examples.deep_compression.run --model lenet5 --epochs 3 --seeds 3

Each compressed model takes as many steps as the dense one. It is trained alone, and a second time started from the
dense model of its seed and taught by it. The script prints bytes of the archive against accuracy on the 10,000
test images after the last step, and writes both as ``sizes.csv`` and ``sizes.png`` into ``runs/deep_compression``.

Paper: Han, Mao and Dally, "Deep Compression: compressing deep neural networks with pruning, trained quantization and
Huffman coding", https://arxiv.org/abs/1510.00149 (2016).
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from lightning.pytorch import Callback, Trainer, seed_everything
from rich.console import Console
from rich.table import Table
from torch import nn

from examples.fashion_mnist import FashionClassifier, FashionData, LeNet5, LeNet300
from lightning_compress import PruningCallback, WeightSharingCallback, export
from lightning_compress.distillation import DistillationCallback, losses
from lightning_compress.schedules import Cubic

FOLDER = Path("runs/deep_compression")
MODELS: dict[str, type[nn.Module]] = {"lenet300": LeNet300, "lenet5": LeNet5}
PRUNING = Cubic(begin=0.15, until=0.7)
FROM_DENSE = Cubic(begin=0.0, until=0.7)  # the weights are trained already
SHARING = Cubic(begin=0.7, until=0.9)  # once pruning is done
TEACHING = {"losses": [losses.SoftTargets(temperature=1.0)], "alpha": 0.3, "initialize": {"model": "model"}}


@dataclass(frozen=True)
class Setting:
    """The compression of one model: fraction of zeros, distinct values per layer, and whether it has a teacher."""

    sparsity: float | None = None
    clusters: int | None = None
    taught: bool = False

    def callbacks(self, teacher: nn.Module | None) -> list[Callback]:
        """The callbacks of this setting."""
        schedule = FROM_DENSE if self.taught else PRUNING
        return [
            *([PruningCallback(self.sparsity, schedule=schedule)] if self.sparsity else []),
            *([WeightSharingCallback(self.clusters, schedule=SHARING)] if self.clusters else []),
            *([DistillationCallback(teacher, **TEACHING)] if self.taught and teacher else []),
        ]

    def __str__(self) -> str:
        sparse = f"{self.sparsity:.1%} zeros" if self.sparsity else "dense"
        values = f", {self.clusters} values" if self.clusters else ""
        return sparse + values + (", taught" if self.taught else "")


def main() -> None:
    """Train every setting with every seed, and show sizes and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="lenet300")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.9, 0.945, 0.96, 0.97])
    parser.add_argument("--clusters", type=int, default=16)
    arguments = parser.parse_args()
    pruned = [Setting(sparsity) for sparsity in arguments.sparsities]
    shared = [
        Setting(sparsity, arguments.clusters, taught) for taught in (False, True) for sparsity in arguments.sparsities
    ]
    found: dict[Setting, list[tuple[float, int]]] = {setting: [] for setting in [Setting(), *pruned[1:2], *shared]}
    for seed in range(arguments.seeds):
        teacher: nn.Module | None = None
        for setting in found:
            module = train(setting, MODELS[arguments.model], arguments.epochs, seed, teacher)
            teacher = teacher or module
            found[setting].append(measure(module, seed))
            print(f"seed {seed}  {setting}: {found[setting][-1][0]:.2f} %, {found[setting][-1][1]:,} bytes", flush=True)
    rows = {setting: (mean(a for a, _ in runs), mean(b for _, b in runs)) for setting, runs in found.items()}
    weights = sum(p.numel() for p in MODELS[arguments.model]().parameters())
    show(arguments.model, rows, 4 * weights)


def train(
    setting: Setting, model: Callable[[], nn.Module], epochs: int, seed: int, teacher: nn.Module | None
) -> FashionClassifier:
    """Train a model with one OneCycle; the teacher was trained by the same recipe."""
    seed_everything(seed, verbose=False)
    module = FashionClassifier(model())
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        callbacks=setting.callbacks(teacher),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    trainer.fit(module, FashionData(seed=seed))
    return module


def measure(module: FashionClassifier, seed: int) -> tuple[float, int]:
    """Test accuracy in percent, and bytes of the archive of the whole model, biases included."""
    trainer = Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False)
    accuracy = 100 * trainer.test(module, FashionData(seed=seed), verbose=False)[0]["test_acc"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / "model.lcz"
    export(module, path)
    return accuracy, path.stat().st_size


def show(name: str, rows: dict[Setting, tuple[float, float]], plain: int) -> None:
    """Print the table, and write it with its plot."""
    dense = rows[Setting()][0]
    table = Table(title=f"{name} on Fashion-MNIST: {plain:,} bytes as float32")
    for column in ("", "test accuracy", "against dense", "archive, bytes", "smaller"):
        table.add_column(column, justify="right" if column else "left")
    with (FOLDER / "sizes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["setting", "accuracy", "bytes", "ratio"])
        for setting, (accuracy, size) in rows.items():
            writer.writerow([str(setting), f"{accuracy:.2f}", f"{size:.0f}", f"{plain / size:.1f}"])
            cells = f"{accuracy:.2f} %", f"{accuracy - dense:+.2f}", f"{size:,.0f}", f"{plain / size:.1f}x"
            table.add_row(str(setting), *cells)
    Console(width=100).print(table)
    _plot(name, rows, plain)


def _plot(name: str, rows: dict[Setting, tuple[float, float]], plain: int) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4), layout="constrained")
    for taught, label in ((False, "alone"), (True, "started from and taught by the dense model")):
        mine = [(plain / size, accuracy) for s, (accuracy, size) in rows.items() if s.clusters and s.taught == taught]
        axes.plot(*zip(*sorted(mine), strict=True), marker="o", label=label)
    axes.axhline(rows[Setting()][0], color="0.5", linestyle="--", label="dense")
    axes.set(xlabel="times smaller than float32", ylabel="test accuracy, %", title=f"{name} on Fashion-MNIST")
    axes.legend()
    figure.savefig(FOLDER / "sizes.png", dpi=150)


if __name__ == "__main__":
    main()
