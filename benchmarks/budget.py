"""Budgets: files, MACs and accuracies of CompressionBudget, beside the dense model and settings by hand.

LeNet-300-100 (10 epochs of Fashion-MNIST) and ResNet-8 (3 epochs of its first 20,000 images), with the recipe of
FashionClassifier, every model in the same number of steps from the same random weights. Settings by hand are
fractions of zeros and numbers of values of all layers, whose files take about as many bytes. The accuracy is that of
the model after the last epoch on the 10,000 test images, by which nothing is chosen.

``python -m benchmarks.budget 3`` takes three seeds; ``--by-hand`` adds the settings by hand.

``--speed`` instead gives ResNet-8 wishes for the speed: half of the MACs, alone and with a number of bytes.

``--max-drop`` instead compresses four trained models of the examples as far as the accuracy on the validation data
loses at most a point, in a second fit of as many epochs at a fifth of the learning rate, with about twenty validations
or one in each epoch. It prints the accuracy on the test data before and after.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, seed_everything
from torch import nn

from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from examples.classifier import Classifier
from examples.digits import DigitsClassifier, DigitsData
from examples.fashion_mnist import FashionClassifier, FashionData, LeNet300, ResNet
from examples.text import DocstringData, Transformer
from examples.time_series import ConvNet, SeriesData
from lightning_compress import CompressionBudget, PruningCallback, WeightSharingCallback, export
from lightning_compress.macs import count_macs
from lightning_compress.schedules import Cubic

MODELS: dict[str, tuple[Callable[[], nn.Module], int, int, tuple[int, ...]]] = {
    "LeNet-300-100": (LeNet300, 10, 60_000, (20_000, 12_000)),
    "ResNet-8": (partial(ResNet, 8), 3, 20_000, (30_000,)),
}
"""Name -> network, epochs, training images, budgets."""

BY_HAND = {
    "LeNet-300-100": [(0.92, 4), (0.93, 8), (0.945, 16), (0.95, 32), (0.96, 4), (0.965, 8), (0.97, 16), (0.975, 32)],
    "ResNet-8": [(0.0, 8), (0.3, 8), (0.5, 16), (0.6, 32), (0.7, 64)],
}
"""Name -> fractions of zeros and numbers of values."""

TRAINED: dict[str, tuple[Callable[[float], LightningModule], float, Callable[[], LightningDataModule], int]] = {
    "digits": (DigitsClassifier, 2e-3, DigitsData, 30),
    "ResNet-8, Fashion-MNIST": (
        lambda lr: FashionClassifier(ResNet(8), lr=lr),
        0.1,
        partial(FashionData, images=20_000, holdout=4_000),
        5,
    ),
    "time series": (lambda lr: Classifier(ConvNet(), lr=lr), 2e-3, partial(SeriesData, 64), 15),
    "texts": (
        lambda lr: Classifier(Transformer(classes=4), classes=4, lr=lr),
        1e-3,
        partial(DocstringData, batch_size=32),
        6,
    ),
}
"""Name -> module with a learning rate, the rate of the dense fit, data, epochs of each fit."""


def main(seeds: int = 1, by_hand: bool = False) -> None:
    """Print a row for each model and budget."""
    quiet()
    torch.set_num_threads(1)
    for name, (_, _, _, budgets) in MODELS.items():
        settings = {f"bytes={size:,}": partial(_budget, bytes=size) for size in budgets}
        settings |= {f"{z:.1%} zeros, {v} values": partial(_settings, z, v) for z, v in BY_HAND[name] if by_hand}
        _compare(name, settings, seeds)


def main_speed(seeds: int = 1) -> None:
    """Print a row for each budget of ResNet-8."""
    quiet()
    torch.set_num_threads(1)
    settings = {
        "bytes=30,000": partial(_budget, bytes=30_000),
        "macs=0.5": partial(_budget, macs=0.5, round_to=8),
        "bytes=30,000, macs=0.5": partial(_budget, bytes=30_000, macs=0.5, round_to=8),
    }
    _compare("ResNet-8", settings, seeds)


def _compare(name: str, settings: dict[str, Callable[[], list[Callback]]], seeds: int) -> None:
    """Train a model densely and with each of the settings, and print a row for each."""
    build, epochs, images, _ = MODELS[name]
    found = {
        setting: [_train(build, epochs, images, seed, make()) for seed in range(seeds)]
        for setting, make in ({"dense": list} | settings).items()
    }
    dense = mean(accuracy for accuracy, _, _ in found["dense"])
    whole = found["dense"][0][2]
    rows = []
    for setting, runs in found.items():
        accuracies, sizes, macs = zip(*runs, strict=True)
        cells = [" ".join(f"{one:.2f}" for one in accuracies), f"{mean(accuracies) - dense:+.2f}"]
        fractions = " ".join(f"{one / whole:.3f}" for one in macs)
        rows.append([setting, *cells, " ".join(f"{size:,}" for size in sizes), fractions])
    title = f"{name} on Fashion-MNIST, {seeds} seeds"
    show(title, ["", "test accuracy, %", "against dense, mean", "file, bytes", "MACs left"], rows)


def main_drop(seeds: int = 1) -> None:
    """Print a row for each model and seed."""
    quiet()
    torch.set_num_threads(1)
    rows = []
    for name, (build, lr, make_data, epochs) in TRAINED.items():
        for seed in range(seeds):
            seed_everything(seed, verbose=False)
            data = make_data()
            data.seed = seed  # type: ignore[attr-defined]
            dense = build(lr)
            trainer(max_epochs=epochs).fit(dense, data)
            before, whole = _test(dense, data), _size(dense)
            module = build(lr / 5)
            module.load_state_dict(dense.state_dict())
            options = {"max_epochs": epochs, "limit_val_batches": 1.0, "val_check_interval": min(1.0, epochs / 20)}
            trainer(CompressionBudget(max_drop=0.01), **options).fit(module, data)
            after, size = _test(module, data), _size(module)
            cells = [f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}"]
            rows.append([name, str(seed), *cells, f"{whole:,}", f"{size:,}", f"{whole / size:.1f}x"])
            print(*rows[-1], flush=True)
    header = ["model", "seed", "test accuracy before, %", "after", "", "file before, bytes", "after", ""]
    show("CompressionBudget(max_drop=0.01)", header, rows)


def _test(module: LightningModule, data: LightningDataModule) -> float:
    return 100 * trainer().test(module, data, verbose=False)[0]["test_acc"]


def _size(module: nn.Module) -> int:
    with tempfile.TemporaryDirectory() as folder:
        return export(module, Path(folder) / "model.lcz").stat().st_size


def _budget(**wishes: Any) -> list[Callback]:
    return [CompressionBudget(**wishes)]


def _settings(zeros: float, values: int) -> list[Callback]:
    sharing = WeightSharingCallback(values, schedule=Cubic(0.7, 0.9))
    return [PruningCallback(zeros), sharing] if zeros else [sharing]


def _train(
    build: Callable[[], nn.Module], epochs: int, images: int, seed: int, callbacks: list[Callback]
) -> tuple[float, int, int]:
    """Test accuracy in %, bytes of the file, and MACs."""
    seed_everything(seed, verbose=False)
    run = trainer(*callbacks, max_epochs=epochs)
    module, data = FashionClassifier(build()), FashionData(images=images, seed=seed)
    run.fit(module, data)
    return _test(module, data), _size(module), count_macs(module, torch.zeros(1, 1, 28, 28)).total


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", type=int, nargs="?", default=1)
    parser.add_argument("--by-hand", action="store_true")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--max-drop", action="store_true")
    arguments = parser.parse_args()
    if arguments.max_drop:
        main_drop(arguments.seeds)
    elif arguments.speed:
        main_speed(arguments.seeds)
    else:
        main(arguments.seeds, arguments.by_hand)
