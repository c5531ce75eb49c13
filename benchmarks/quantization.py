"""Quantization on Fashion-MNIST: accuracy, the cost of a step, and what runtimes make of ResNet-8 and ResNet-20.

ResNet-8 of width 16, the first 20,000 images, batches of 128: three epochs in float (SGD, OneCycle up to 0.1), then one
more epoch up to 0.02 in float and once for each number of bits, from the same weights and in the same order of images.
Accuracies are those after the last epoch on the 10,000 test images, means over seeds. Latencies are taken in turns, on
one thread. ``python -m benchmarks.quantization 3`` takes three seeds.
"""

from __future__ import annotations

import copy
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Any

import torch
from lightning.pytorch import Callback, seed_everything
from torch import Tensor, nn

from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from benchmarks.turns import Stopwatch, in_turns, median_ratio
from examples.fashion_mnist import FashionClassifier, FashionData, ResNet
from lightning_compress.deploy.export import export
from lightning_compress.deploy.freezing import freeze
from lightning_compress.deploy.runtimes import OnnxRuntime, OpenVINO, Run
from lightning_compress.lowering.layers import QuantizedLayer
from lightning_compress.lowering.modules import lower
from lightning_compress.quantization import BinarizationCallback, MixedBits, QATCallback, observers, profiles, scales
from lightning_compress.quantization.activations.quantizers import quantizers_of
from lightning_compress.schedules import Constant
from lightning_compress.timing import time_ratio

_AT_ONCE = Constant()
_FITTED: dict[str, Any] = {"scale": scales.mse, "schedule": _AT_ONCE, "every_n_steps": 1}
_ENDS = ("model.conv.weight", "model.fc.weight")
_VARIANTS: dict[str, Callable[[], list[Callback]]] = {
    "float": list,
    "W8A8": lambda: [QATCallback(8, activation_bits=8, schedule=_AT_ONCE)],
    "W8A8 for OpenVINO": lambda: [QATCallback(8, activation_bits=8, schedule=_AT_ONCE, profile=profiles.OpenVINO())],
    "W4A8": lambda: [QATCallback(4, activation_bits=8, scale=scales.mse, schedule=_AT_ONCE)],
    "W3A8": lambda: [QATCallback(3, activation_bits=8, scale=scales.mse, schedule=_AT_ONCE)],
    "W3A8 on average": lambda: [QATCallback(MixedBits(3), activation_bits=8, scale=scales.mse, schedule=_AT_ONCE)],
    "W2A8": lambda: [QATCallback(2, activation_bits=8, scale=scales.mse, schedule=_AT_ONCE, every_n_steps=1)],
    "W2A8, first and last layer W8A8": lambda: [
        QATCallback(2, activation_bits=8, scale=scales.mse, schedule=_AT_ONCE, exclude=_ENDS),
        QATCallback(8, activation_bits=8, schedule=_AT_ONCE, include=_ENDS),
    ],
    "W2.06A8 on average": lambda: [
        QATCallback(MixedBits(2.06), activation_bits=8, scale=scales.mse, schedule=_AT_ONCE, every_n_steps=1)
    ],
    "W4A4": lambda: [QATCallback(4, activation_bits=4, **_FITTED)],
    "W4A4, ranges by mse": lambda: [QATCallback(4, activation_bits=4, **_FITTED, observer=observers.mse)],
    "W4A4, ranges learned": lambda: [
        QATCallback(4, activation_bits=4, **_FITTED, observer=observers.mse, range_lr=0.03)
    ],
    "W4A4, ranges learned, all every 10 steps": lambda: [
        QATCallback(4, activation_bits=4, scale=scales.mse, schedule=_AT_ONCE, observer=observers.mse, range_lr=0.03)
    ],
    "W2A4": lambda: [QATCallback(2, activation_bits=4, **_FITTED)],
    "W2A4, ranges by mse": lambda: [QATCallback(2, activation_bits=4, **_FITTED, observer=observers.mse)],
    "W2A4, ranges learned": lambda: [
        QATCallback(2, activation_bits=4, **_FITTED, observer=observers.mse, range_lr=0.03)
    ],
    "W8, float activations": lambda: [QATCallback(8, activation_bits=None, schedule=_AT_ONCE)],
    "W8A8, ranges learned": lambda: [QATCallback(8, activation_bits=8, schedule=_AT_ONCE, range_lr=0.03)],
    "binary weights": lambda: [BinarizationCallback(schedule=_AT_ONCE)],
}
_SHIPPED = ("float", "W8A8", "W8A8 for OpenVINO")


def main(seeds: int = 1) -> None:
    """Print the tables."""
    quiet()
    trained = _accuracy(seeds)
    data = FashionData(images=20_000)
    _cost(data)
    _runtimes("ResNet-8", data, trained)
    _runtimes("ResNet-20", data, {name: model for name, (model, _) in _train(20, 0, _SHIPPED).items()})


def _accuracy(seeds: int) -> dict[str, FashionClassifier]:
    """Print the accuracies; the models of the first seed."""
    runs = [_train(8, seed, tuple(_VARIANTS)) for seed in range(seeds)]
    found = {name: [run[name][1] for run in runs] for name in _VARIANTS}
    float_ = mean(found["float"])
    rows = [[name, f"{mean(values):.2f}", f"{float_ - mean(values):+.2f}"] for name, values in found.items()]
    title = f"ResNet-8, one more epoch: test accuracy in %, {seeds} seed{'s' if seeds > 1 else ''}"
    show(title, ["weights and activations", "accuracy", "loss"], rows)
    return {name: model for name, (model, _) in runs[0].items()}


def _train(depth: int, seed: int, variants: Sequence[str]) -> dict[str, tuple[FashionClassifier, float]]:
    """Variant -> the model and its test accuracy in %."""
    data = FashionData(images=20_000, seed=seed)
    seed_everything(seed, verbose=False)
    dense = FashionClassifier(ResNet(depth))
    trainer(max_epochs=3).fit(dense, data)
    found = {}
    for name in variants:
        module = FashionClassifier(ResNet(depth), lr=0.02)
        module.load_state_dict(dense.state_dict())
        run = trainer(*_VARIANTS[name](), max_epochs=1)
        run.fit(module, data)
        found[name] = module, 100 * run.test(module, data, verbose=False)[0]["test_acc"]
    return found


def _cost(data: FashionData, steps: int = 20, turns: int = 7) -> None:
    """Print what a step costs, by the second epoch of short fits: none of them compiles there."""
    for compiled in (False, True):
        names = ("float", "W8, float activations", "W8A8", "W8A8, ranges learned")
        taken = in_turns({name: partial(_timed, name, data, steps, compiled) for name in names}, turns)
        seconds = {name: [watch.cpu for watch in watches] for name, watches in taken.items()}
        rows = [
            [
                name,
                f"{1000 * median(times) / steps:.1f}",
                f"{median_ratio(times, seconds['float']):.3f}",
            ]
            for name, times in seconds.items()
        ]
        title = f"ResNet-8, a training step of 128 images, {'compiled' if compiled else 'eager'}"
        show(title, ["", "CPU ms/step", "CPU ratio"], rows)


def _timed(name: str, data: FashionData, steps: int, compiled: bool) -> Stopwatch:
    seed_everything(0, verbose=False)
    watch, module = Stopwatch(), FashionClassifier(ResNet(8))
    if compiled:
        torch.compiler.reset()
        module.model.compile(fullgraph=True)
    gc.collect()
    trainer(*_VARIANTS[name](), watch, max_epochs=2, limit_train_batches=steps).fit(module, data)
    return watch


def _runtimes(title: str, data: FashionData, trained: dict[str, FashionClassifier]) -> None:
    data.setup("test")
    images, labels = data.test
    models = {name: trained[name].eval() for name in _SHIPPED}
    folder = Path(tempfile.mkdtemp())
    files = {name: export(model, folder / f"{name}.onnx", images[:8]) for name, model in models.items()}
    runs: dict[str, dict[str, Run]] = {
        runtime.name: {name: runtime.load(path) for name, path in files.items()}
        for runtime in (OnnxRuntime(), OpenVINO())
    }
    frozen = runs["PyTorch, frozen"] = {name: _alone(freeze(model, images[:64])) for name, model in models.items()}
    compiled = torch.no_grad()(torch.compile(copy.deepcopy(models["float"]), dynamic=False))
    runs["PyTorch, frozen against torch.compile"] = {**frozen, "float": _alone(compiled)}
    references = _references(models["W8A8"], images)
    validated = {kind: _classes(models[kind], images) for kind in _SHIPPED[1:]}
    rows, others = [], []
    for name, by_model in runs.items():
        for kind in _SHIPPED[1:]:
            ratios = [
                time_ratio(
                    partial(by_model[kind], [images[:batch]]),
                    partial(by_model["float"], [images[:batch]]),
                    rounds=30,
                    clock=time.process_time,
                )
                for batch in (1, 64)
            ]
            classes = torch.cat([by_model[kind]([part])[0] for part in images.split(100)]).argmax(1)
            same = 100 * (classes == validated[kind]).float().mean().item()
            accuracy = 100 * (classes == labels).float().mean().item()
            rows.append([name, kind, *(f"{value:.2f}" for value in (*ratios, same, accuracy))])
            if kind == "W8A8":
                others.append([name, *(str(int((classes != found).sum())) for found in references.values())])
    header = ["runtime", "model", "int8 / float, batch 1", "batch 64", "same class as PyTorch, %", "accuracy, %"]
    show(f"{title}: latency of int8 against float, one thread", header, rows)
    show(f"{title}, W8A8: images of 10,000 in another class than ...", ["runtime", *references], others[:-1])
    operators = OnnxRuntime().operators(files["W8A8"])
    print(f"fused: {operators.fused}; left in float: {operators.floating or 'none'}")
    print({name: f"{path.stat().st_size / 1000:.0f} kB" for name, path in files.items()})


def _references(module: FashionClassifier, images: Tensor) -> dict[str, Tensor]:
    """Arithmetic -> the classes that it gives: each leaves out or adds one rounding."""
    sums, biases = (lower(module, (images[:2],), exact=True) for _ in range(2))
    for layer in biases.modules():
        if isinstance(layer, QuantizedLayer) and layer.reads is not None:
            layer.integers.round_bias(torch.tensor(layer.reads.scale))
    unrounded = copy.deepcopy(module)
    for place, quantizer in quantizers_of(unrounded).items():
        quantizer.enabled = not place.module.endswith("norm2")
    computed = {
        "PyTorch": module,
        "exact sums": sums,
        "... and biases": biases,
        "residual branches not rounded": unrounded,
    }
    return {name: _classes(model, images) for name, model in computed.items()}


@torch.no_grad()
def _classes(model: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([model(part) for part in images.split(500)]).argmax(1)


def _alone(run: Callable[..., Any]) -> Run:
    """A function of one tensor, as runtimes have it."""
    return lambda inputs: [run(inputs[0])]


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
