"""Sensitivities of ResNet-8 on Fashion-MNIST: how well the second-order proxy ranks the measured rises of the loss.

ResNet-8 of width 16, the first 20,000 images, three epochs in float. Each layer alone is then rounded to 4, 3 and 2
bits or pruned, without training; loss and Fisher information are those of the first test images.
``python -m benchmarks.sensitivity 3`` takes three seeds.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean
from typing import Any

import torch
from lightning.pytorch import seed_everything
from torch import nn

from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from examples.fashion_mnist import FashionClassifier, FashionData, ResNet
from lightning_compress import PruningCallback, QATCallback, sensitivity
from lightning_compress.quantization import scales
from lightning_compress.search import Sensitivity

_METHODS = [
    *(QATCallback(bits, activation_bits=None, scale=scales.mse) for bits in (4, 3, 2)),
    *(PruningCallback(sparsity) for sparsity in (0.5, 0.7, 0.9, 0.95)),
]
_COUNTS = (128, 512, 1024)
"""Numbers of examples of the Fisher information and of the mean gradient; 512 is the default."""


def main(seeds: int = 1) -> None:
    """Print the tables."""
    quiet()
    found: dict[str, list[list[float]]] = {}
    for seed in range(seeds):
        data = FashionData(images=20_000, seed=seed)
        seed_everything(seed, verbose=False)
        dense = FashionClassifier(ResNet(8))
        trainer(max_epochs=3).fit(dense, data)
        start = time.perf_counter()
        measured = sensitivity(dense, data.test, methods=_METHODS)
        seconds = time.perf_counter() - start
        if seed == 0:
            print(measured, end="\n\n")
        print(f"seed {seed}: {len(measured.rows)} trials of {measured.examples:,} images in {seconds:.0f} seconds")
        for count in _COUNTS:
            costs = sensitivity(dense, data.test, methods=_METHODS, metric=_zero, mode="min", fisher_examples=count)
            pairs = list(zip(measured.rows, costs.rows, strict=True))
            proxies = {
                f"second order, {count} examples": [replace(row, cost=other.cost) for row, other in pairs],
                f"and first order, {count} examples": [
                    replace(row, cost=other.cost + other.first_order) for row, other in pairs
                ],
            }
            for name, rows in proxies.items():
                found.setdefault(name, []).append(_correlations(replace(measured, rows=tuple(rows))))
    labels = dict.fromkeys(row.label for row in measured.rows)
    header = ["proxy", *labels, "all bits", "all sparsities", "all"]
    cells = [[name, *(f"{mean(values):.2f}" for values in zip(*runs, strict=True))] for name, runs in found.items()]
    show(f"ResNet-8: rank correlation of proxy and measured rise of the loss, {seeds} seeds", header, cells)


def _correlations(result: Sensitivity) -> list[float]:
    """Rank correlations over the layers of each method; over the rows of all bits, of all sparsities, and all rows."""
    kinds = ("weight_bits", "sparsity", "")
    parts = (tuple(row for row in result.rows if row.label.startswith(kind)) for kind in kinds)
    together = [replace(result, rows=part).rank_correlation for part in parts]
    return [*result.rank_correlations.values(), *together]


def _zero(module: nn.Module, batches: Sequence[Any]) -> float:
    """No measurement: the costs are wanted alone."""
    return 0.0


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*map(int, sys.argv[1:]))
