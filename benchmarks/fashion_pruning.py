"""Accuracy against sparsity: LeNet-300-100 on Fashion-MNIST, dense and pruned in the same number of steps.

Each run: 10 epochs, batches of 128, SGD with Nesterov momentum 0.9, weight decay 5e-4, OneCycle up to 0.1, images
normalized, no augmentation, PruningCallback with its defaults, and with gradients as they are. The accuracy is
that of the model after the last epoch on the 10,000 test images, by which nothing is chosen.
"""

from __future__ import annotations

from statistics import mean

import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor

from benchmarks.tables import quiet, show
from examples.fashion_mnist import FashionClassifier, FashionData, LeNet300
from lightning_compress import PruningCallback

SEEDS = range(5)
SPARSITIES = (0.9, 0.95, 0.98)
SCALES = (None, 1.0)
"""Values of ``gradient_scale``; the first is the default."""


def main() -> None:
    """Print accuracies of every seed, their means and the losses."""
    quiet()
    data = FashionData()
    pruned = [(sparsity, scale) for sparsity in SPARSITIES for scale in SCALES]
    dense = [_accuracy(data, seed) for seed in SEEDS]
    rows = [["dense", "", *(f"{value:.2f}" for value in dense), f"{mean(dense):.2f}", ""]]
    for sparsity, scale in pruned:
        found = [_accuracy(data, seed, sparsity, scale) for seed in SEEDS]
        loss = mean(dense) - mean(found)
        cells = [f"{sparsity:.0%}", str(scale), *(f"{value:.2f}" for value in found), f"{mean(found):.2f}"]
        rows.append([*cells, f"{loss:+.2f}"])
    header = ["sparsity", "gradient_scale", *(f"seed {seed}" for seed in SEEDS), "mean", "loss"]
    show("LeNet-300-100 on Fashion-MNIST, test accuracy in % after 10 epochs", header, rows)


def _accuracy(data: FashionData, seed: int, sparsity: float | None = None, scale: float | None = None) -> float:
    seed_everything(seed, verbose=False)
    data.seed = seed
    trainer = Trainer(
        max_epochs=10,
        accelerator="cpu",
        logger=False,
        callbacks=[] if sparsity is None else [PruningCallback(sparsity, gradient_scale=scale)],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    module = FashionClassifier(LeNet300())
    trainer.fit(module, data)
    if sparsity is not None:
        _check(module, sparsity)
    return 100 * trainer.test(module, data, verbose=False)[0]["test_acc"]


def _check(module: FashionClassifier, sparsity: float) -> None:
    weights: Tensor = torch.cat([p.detach().flatten() for p in module.parameters() if p.ndim > 1])
    zeros = int((weights == 0).sum())
    if abs(zeros - sparsity * len(weights)) > 1:
        raise RuntimeError(f"need {sparsity:.0%} of {len(weights)} weights to be zero, got {zeros}")


if __name__ == "__main__":
    main()
