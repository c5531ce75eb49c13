"""Low rank against dense: accuracy, latency, and the cost of projections.

LeNet-300-100 (5 epochs of Fashion-MNIST), ResNet-8 (3 epochs of its first 20,000 images), with the recipe of
FashionClassifier; half and a quarter of the parameters of all weights; two seeds. The accuracy is that of the model
after the last epoch on the 10,000 test images. Latency: median of turns with
the dense model.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import mean, median

import torch
from lightning.pytorch import Callback, seed_everything
from torch import nn

from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from examples.fashion_mnist import FashionClassifier, FashionData, LeNet300, ResNet
from lightning_compress.low_rank import LowRankCallback
from lightning_compress.low_rank.factorization import decompose, project

SEEDS = (0, 1)
MODELS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "LeNet-300-100": (LeNet300, 5, 60_000),
    "ResNet-8": (partial(ResNet, 8), 3, 20_000),
}
"""Name -> network, epochs, training images."""


def main() -> None:
    """Print accuracies and latencies, then the cost of projections and of updates."""
    quiet()
    torch.set_num_threads(1)
    rows = []
    for name, (build, epochs, images) in MODELS.items():
        dense = [_train(build, epochs, images, seed) for seed in SEEDS]
        for kept in (0.5, 0.25):
            small = [_train(build, epochs, images, seed, LowRankCallback(kept)) for seed in SEEDS]
            cells = [f"{mean(accuracy for accuracy, _ in runs):.2f}" for runs in (dense, small)]
            times = [f"{_latency_ratio(dense[0][1], small[0][1], batch):.2f}" for batch in (1, 64)]
            rows.append([name, f"{kept:.0%}", *cells, *times])
    header = ["model", "parameters kept", "dense, %", "low rank, %", "latency b1", "latency b64"]
    show("Low rank, mean test accuracy of two seeds, latency as a fraction of dense", header, rows)
    shapes = {"512 x 512": [(512, 512)], "ResNet-8": [(p.shape[0], p[0].numel()) for p in _weights(ResNet(8))]}
    costs = [[name, *(f"{1000 * seconds:.2f}" for seconds in _costs(sizes))] for name, sizes in shapes.items()]
    show("Cost of all weights, CPU ms", ["weights", "projection", "update"], costs)


def _train(
    build: Callable[[], nn.Module], epochs: int, images: int, seed: int, *callbacks: Callback
) -> tuple[float, nn.Module]:
    """Test accuracy in %, and the model."""
    seed_everything(seed, verbose=False)
    run = trainer(*callbacks, max_epochs=epochs)
    module, data = FashionClassifier(build()), FashionData(images=images, seed=seed)
    run.fit(module, data)
    return 100 * run.test(module, data, verbose=False)[0]["test_acc"], module.model.eval()


@torch.no_grad()
def _latency_ratio(dense: nn.Module, small: nn.Module, batch: int) -> float:
    images = torch.randn(batch, 1, 28, 28)
    ratios = []
    for _ in range(21):
        one, other = (_seconds(partial(model, images), 200 // batch + 5) for model in (dense, small))
        ratios.append(other / one)
    return median(ratios)


def _costs(shapes: list[tuple[int, int]]) -> tuple[float, float]:
    """Seconds of one projection and of one update of matrices of these shapes, at a quarter of their rank."""
    matrices = [torch.randn(shape) for shape in shapes]
    bases = [decompose(matrix)[0][:, : max(1, min(matrix.shape) // 4)].contiguous() for matrix in matrices]

    def project_all() -> None:
        for matrix, basis in zip(matrices, bases, strict=True):
            project(matrix, basis)

    def decompose_all() -> None:
        for matrix in matrices:
            decompose(matrix)

    return median(_seconds(project_all, 5) for _ in range(9)), median(_seconds(decompose_all, 2) for _ in range(9))


def _seconds(work: Callable[[], object], repeat: int) -> float:
    began = time.process_time()
    for _ in range(repeat):
        work()
    return (time.process_time() - began) / repeat


def _weights(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.ndim > 1]


if __name__ == "__main__":
    main()
