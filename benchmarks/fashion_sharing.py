"""Weight sharing: LeNet-300-100 on Fashion-MNIST, dense, with 16 values a layer, and 95 % sparse with 16 values.

The runs are those of :mod:`benchmarks.fashion_pruning`: 10 epochs each, accuracy after the last epoch on the 10,000
test images. Run: ``python -m benchmarks.fashion_sharing [seeds]``
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import mean

import torch
from lightning.pytorch import Callback, Trainer, seed_everything

from benchmarks.tables import quiet, show
from examples.fashion_mnist import FashionClassifier, FashionData, LeNet300
from lightning_compress import PruningCallback
from lightning_compress.sharing import WeightSharingCallback, gradients

RUNS: dict[str, Callable[[], list[Callback]]] = {
    "dense": list,
    "16 values": lambda: [WeightSharingCallback(16)],
    "16 values, summed gradients": lambda: [WeightSharingCallback(16, gradient=gradients.summed)],
    "95 % sparse": lambda: [PruningCallback(0.95)],
    "95 % sparse, 16 values": lambda: [PruningCallback(0.95), WeightSharingCallback(16)],
}


def main(seeds: int = 2) -> None:
    """Print accuracies of every seed, their means, the losses, and bits per weight at the entropy limit."""
    quiet()
    data = FashionData()
    rows: list[list[str]] = []
    dense = 0.0
    for name, callbacks in RUNS.items():
        found = [_train(data, callbacks(), seed) for seed in range(seeds)]
        accuracy, bits = mean(one for one, _ in found), mean(one for _, one in found)
        dense = dense or accuracy
        accuracies = [f"{one:.2f}" for one, _ in found]
        rows.append([name, *accuracies, f"{accuracy:.2f}", f"{dense - accuracy:+.2f}", f"{bits:.2f}"])
        print(*rows[-1], sep="  ", flush=True)
    header = ["", *(f"seed {seed}" for seed in range(seeds)), "mean", "loss", "bits per weight"]
    show("LeNet-300-100 on Fashion-MNIST, test accuracy in % after 10 epochs", header, rows)


def _train(data: FashionData, callbacks: list[Callback], seed: int) -> tuple[float, float]:
    seed_everything(seed, verbose=False)
    data.seed = seed
    trainer = Trainer(
        max_epochs=10,
        accelerator="cpu",
        logger=False,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
    )
    module = FashionClassifier(LeNet300())
    trainer.fit(module, data)
    return 100 * trainer.test(module, data, verbose=False)[0]["test_acc"], _bits(module)


def _bits(module: torch.nn.Module) -> float:
    """Entropy of the weights' values, layer by layer, per weight."""
    weights = [parameter.detach() for parameter in module.parameters() if parameter.ndim > 1]
    total = 0.0
    for weight in weights:
        fraction = weight.unique(return_counts=True)[1] / weight.numel()
        total -= float((fraction * fraction.log2()).sum()) * weight.numel()
    return total / sum(weight.numel() for weight in weights)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
