"""Channels removed during training: accuracy, latency in ONNX Runtime and step time, against dense.

ResNet-8 and ResNet-20 on the first 20,000 images of Fashion-MNIST, 3 epochs, the recipe of FashionClassifier. Pruned in
the same number of steps, once from random weights and once from the dense model. Latency: one thread, median of
interleaved rounds (dense, narrow, dense, narrow, ...), batch 1 and 64. Step time: process time of a training step of
the narrow model against the dense one, interleaved as well.

``--integers 2`` instead quantizes a wide ResNet-8 by QATCallback and asks for half of the latency at batch 1, with two
seeds: once as the budget measures it beside that callback, of integer files, once by the MACs that a budget finds on
float files. The latencies are those of the trained int8 files, against the file of the dense model in int8.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Callback, seed_everything
from torch import nn
from torch.nn import functional as F

from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from examples.fashion_mnist import FashionClassifier, FashionData
from examples.fashion_mnist.models import ResNet
from lightning_compress import QATCallback
from lightning_compress.channels import ChannelPruningCallback
from lightning_compress.channels.budget.costs import costs_of
from lightning_compress.channels.budget.latencies import macs_within_latency
from lightning_compress.channels.dependencies.removable import find_removable
from lightning_compress.deploy import export
from lightning_compress.deploy.runtimes import OnnxRuntime
from lightning_compress.schedules import Cubic
from lightning_compress.timing import time_ratio

SETTINGS = ((20, 0.5, 16, False), (20, 0.5, 16, True), (8, 0.53, 16, False), (8, 0.5, 8, False), (8, 0.5, 16, True))
"""Depth, fraction of MACs, ``round_to``, ``remove_blocks``; in sixteens, with all blocks, ResNet-8 reaches 53 %."""

EARLY = Cubic(0.0, 0.3)
"""For a model that is trained already: there is nothing to wait for."""

WIDTH = 32
"""Channels of the first stage, where integers are measured."""


def main(seed: int = 0) -> None:
    """Print one row for each setting."""
    quiet()
    torch.set_num_threads(1)
    data = FashionData(images=20_000, seed=seed)
    dense = {depth: train(partial(ResNet, depth), data, seed) for depth in sorted({setting[0] for setting in SETTINGS})}
    rows = []
    for depth, macs, round_to, blocks in SETTINGS:
        pruning = ChannelPruningCallback(macs, round_to=round_to, remove_blocks=blocks)
        accuracy, model = train(partial(ResNet, depth), data, seed, pruning)
        before, wide = dense[depth]
        early = ChannelPruningCallback(macs, round_to=round_to, remove_blocks=blocks, schedule=EARLY)
        tuned, _ = train(partial(_trainable, wide), data, seed, early)
        rows.append(
            [
                f"ResNet-{depth}",
                str(round_to),
                "may go" if blocks else "stay",
                f"{pruning.metrics()['macs']:.3f}",
                f"{_size(model) / _size(wide):.3f}",
                f"{before:.2f}",
                f"{accuracy:.2f}",
                f"{tuned:.2f}",
                *(f"{latency(wide, model, batch):.2f}" for batch in (1, 64)),
                f"{time_ratio(_stepper(model), _stepper(wide), rounds=15, clock=time.process_time):.2f}",
            ]
        )
    header = [
        "model",
        "round_to",
        "blocks",
        "MACs",
        "parameters",
        "dense",
        "narrowed",
        "narrowed from dense",
        "latency b1",
        "latency b64",
        "step",
    ]
    show("Channels removed during fit; accuracies in %, the others as fractions of dense", header, rows)


def main_integers(seeds: int) -> None:
    """Print a row for each seed and budget."""
    quiet()
    torch.set_num_threads(1)
    example, rows = torch.zeros(1, 1, 28, 28), []
    for seed in range(seeds):
        data, build = FashionData(images=20_000, seed=seed), partial(ResNet, 8, WIDTH)
        before, wide = train(build, data, seed, QATCallback())
        measured = ChannelPruningCallback(latency=0.5, runtime=OnnxRuntime(), example_input=example)
        budgets = {"of integers": measured, "of floats": ChannelPruningCallback(_float_macs(build()))}
        for name, pruning in budgets.items():
            accuracy, model = train(build, data, seed, pruning, QATCallback())
            told = pruning.report().get("latency")
            cells = ["" if told is None else f"{told:.3f}", f"{latency(wide, model, 1):.3f}"]
            accuracies = [f"{before:.2f}", f"{accuracy:.2f}"]
            rows.append([name, str(seed), f"{pruning.metrics()['macs']:.3f}", *cells, *accuracies])
            print(*rows[-1], flush=True)
    header = ["latency=0.5", "seed", "MACs", "latency as told", "latency of the files", "dense int8", "narrowed int8"]
    show("Half of the latency in int8", header, rows)


def _float_macs(model: nn.Module) -> float:
    """The MACs with which float files take half of the latency."""
    example = torch.zeros(1, 1, 28, 28)
    found = find_removable(model, example)
    costs = costs_of(model, found.prices)
    return macs_within_latency(model, example, found.groups, costs, 0.5, 16, OnnxRuntime())


def train(
    build: Callable[[], nn.Module], data: FashionData, seed: int, *callbacks: Callback
) -> tuple[float, nn.Module]:
    """Build a model and train it for 3 epochs: test accuracy in %, and the model."""
    seed_everything(seed, verbose=False)
    run = trainer(*callbacks, max_epochs=3)
    module = FashionClassifier(build())
    run.fit(module, data)
    return 100 * run.test(module, data, verbose=False)[0]["test_acc"], module.model.eval()


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def latency(wide: nn.Module, small: nn.Module, batch: int) -> float:
    """Latency of ``small`` as a fraction of that of ``wide``, in ONNX Runtime."""
    images = torch.randn(batch, 1, 28, 28)
    with tempfile.TemporaryDirectory() as folder:
        files = [export(model, Path(folder) / f"{name}.onnx", images) for name, model in (("a", wide), ("b", small))]
        one, other = (partial(OnnxRuntime().load(file), [images]) for file in files)
    return time_ratio(other, one, rounds=21, clock=time.process_time)


def _trainable(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).train()


def _stepper(model: nn.Module) -> Callable[[], None]:
    model = _trainable(model)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    images, labels = torch.randn(128, 1, 28, 28), torch.randint(0, 10, (128,))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--integers", type=int, metavar="SEEDS")
    seeds = parser.parse_args().integers
    main() if seeds is None else main_integers(seeds)
