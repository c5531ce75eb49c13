"""Profiles of runtimes: accuracy of the models trained for them, and the files that run there.

ResNet-8 on the first 20,000 images of Fashion-MNIST: three epochs in float, then one more with each profile. A file is
compared with the module on all 10,000 test images, and its latency on one image, and on 64, with that of the float file
in the same runtime, by turns on one thread.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

import torch
from lightning.pytorch import seed_everything
from torch import Tensor

from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from examples.fashion_mnist import FashionClassifier, FashionData, ResNet
from lightning_compress.deploy.export import export, find_writer
from lightning_compress.deploy.runtimes import LiteRT, Runtime, installed
from lightning_compress.quantization import QATCallback, profiles
from lightning_compress.report.measures.deployments import measure_deployments
from lightning_compress.schedules import Constant

PROFILES = (profiles.OnnxRuntime(), profiles.OpenVINO(), profiles.TensorRT(), profiles.Mobile(), profiles.CoreML())
FILES = (
    (profiles.OnnxRuntime(), ".onnx"),
    (profiles.TensorRT(), ".onnx"),
    (profiles.Mobile(), ".pte"),
    (profiles.Mobile(), ".tflite"),
)


def main(seeds: int = 1, weight_bits: int = 8) -> None:
    """Print both tables."""
    quiet()
    torch.set_num_threads(1)
    trained = [_train(seed, weight_bits) for seed in range(seeds)]
    rows = []
    for name in trained[0]:
        found = [accuracy for _, accuracy in (models[name] for models in trained)]
        rows.append([name, ", ".join(f"{accuracy:.2f}" for accuracy in found), f"{mean(found):.2f}"])
    show(f"ResNet-8, {weight_bits}-bit weights, test accuracy in %", ["trained for", "by seed", "mean"], rows)
    files = [cells for profile, suffix in FILES for cells in _files(trained[0], profile, suffix)]
    header = [
        "trained for",
        "file, runtime",
        "bytes",
        "of float",
        "memory",
        "integer layers",
        "same class, %",
        "batch 1",
        "batch 64",
    ]
    show("ResNet-8, seed 0; latencies as fractions of those of the float file", header, files)


def _train(seed: int, weight_bits: int) -> dict[str, tuple[FashionClassifier, float]]:
    """``float`` or profile -> the model and its test accuracy in %."""
    data = FashionData(images=20_000, seed=seed)
    seed_everything(seed, verbose=False)
    dense = FashionClassifier(ResNet(8))
    trainer(max_epochs=3).fit(dense, data)
    callbacks = {str(profile): QATCallback(weight_bits, schedule=Constant(), profile=profile) for profile in PROFILES}
    found = {}
    for name, callback in {"float": None, **callbacks}.items():
        module = FashionClassifier(ResNet(8), lr=0.02)
        module.load_state_dict(dense.state_dict())
        run = trainer(*([callback] if callback else []), max_epochs=1)
        run.fit(module, data)
        found[name] = module.eval(), 100 * run.test(module, data, verbose=False)[0]["test_acc"]
    return found


def _files(
    trained: dict[str, tuple[FashionClassifier, float]], profile: profiles.Profile, suffix: str
) -> Iterator[list[str]]:
    data, writer = FashionData(), find_writer(suffix)
    data.setup("test")
    images, (dense, _), (module, _) = data.test[0], trained["float"], trained[str(profile)]
    with TemporaryDirectory() as folder, torch.no_grad():
        path = export(module, Path(folder) / f"model{suffix}", images[:1])
        classes = module(images).argmax(1)
        measured = measure_deployments(dense, module, path, images[:1], images[:64], writer)
        for one, runtime in zip(measured, installed(writer.runtimes), strict=True):
            layers = f"{one.integer} of {one.integer + len(one.floating)}"
            pairs = (one.latencies, one.batch_latencies)
            latencies = ["" if pair is None else f"{pair[1].median / pair[0].median:.2f}" for pair in pairs]
            size = [
                f"{one.bytes:,}",
                f"{one.bytes / one.dense_bytes:.2f}",
                "" if one.memory is None else f"{one.memory:,}",
            ]
            same = _same(runtime, path, images, classes)
            yield [str(profile), f"{suffix}, {one.runtime}", *size, layers, same, *latencies]
            if isinstance(runtime, LiteRT):
                same = _same(LiteRT(reference=True), path, images, classes)
                yield [str(profile), f"{suffix}, {one.runtime}, reference kernels", *size, layers, same, "", ""]


def _same(runtime: Runtime, path: Path, images: Tensor, classes: Tensor) -> str:
    return f"{100 * (runtime.load(path)([images])[0].argmax(1) == classes).float().mean():.2f}"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
