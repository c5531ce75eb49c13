"""The device zoo: kinds of models, each trained for the profile of a format, written, and run in its runtimes.

Each network learns a generated task in float, then goes on with the profile. A file works if it gives, on 200 new
samples, what the module in the Trainer gives. Differences are in steps of the output: of its quantizer, or a 255th of
its range where it has none. Otherwise the row is the sentence by which the package refuses the pair.
``python -m benchmarks.device_zoo LSTM .pte`` runs the rows whose names hold each word.
"""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from lightning.pytorch import Callback, seed_everything
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.device_models import MODELS, Kind, Learner
from benchmarks.tables import quiet, show
from benchmarks.trainers import trainer
from lightning_compress import ChannelPruningCallback, LowRankCallback, QATCallback, WeightSharingCallback
from lightning_compress.deploy.export import export, find_writer
from lightning_compress.deploy.formats import Writer
from lightning_compress.deploy.runtimes import IntegerOperators, Run, installed
from lightning_compress.deploy.writers.onnx import Onnx
from lightning_compress.loading import load_compressed
from lightning_compress.quantization import profiles
from lightning_compress.quantization.activations.quantizers import quantizers_of
from lightning_compress.schedules import Constant
from tests.support.tensorrt import violations

SAMPLES, BATCH, BATCHES = 200, 32, 20
WEIGHT_BITS = 7  # kernels of CPUs without VNNI saturate with 8


@dataclass(frozen=True)
class Target:
    """A format, and what trains a model for it.

    Attributes:
        name: of the profile or method.
        suffix: of the file.
        method: makes the callback.
        runtime: the only one to run the file in; empty for all.
        writer: of the file; by default the one for the suffix.
    """

    name: str
    suffix: str
    method: Any
    runtime: str = ""
    writer: Writer | None = None


def _quantized(profile: profiles.Profile) -> Any:
    return lambda: QATCallback(WEIGHT_BITS, schedule=Constant(), profile=profile)


QUANTIZED = (
    Target("OnnxRuntime", ".onnx", _quantized(profiles.OnnxRuntime()), "ONNX Runtime"),
    Target("OpenVINO", ".onnx", _quantized(profiles.OpenVINO()), "OpenVINO", Onnx(profiles.OpenVINO())),
    Target("TensorRT", ".onnx", _quantized(profiles.TensorRT()), "ONNX Runtime", Onnx(profiles.TensorRT())),
    Target("Dynamic", ".onnx", _quantized(profiles.Dynamic())),
    Target("OnnxRuntime", ".pt2", _quantized(profiles.OnnxRuntime())),
    Target("OnnxRuntime", ".lcz", _quantized(profiles.OnnxRuntime())),
    Target("Mobile", ".pte", _quantized(profiles.Mobile())),
    Target("Mobile", ".tflite", _quantized(profiles.Mobile())),
)
FLOAT_METHODS = {
    "ChannelPruning": lambda: ChannelPruningCallback(macs=0.6, round_to=4),
    "LowRank": lambda: LowRankCallback(parameters=0.7),
    "WeightSharing": lambda: WeightSharingCallback(16),
}
FLOAT = tuple(
    Target(name, suffix, method)
    for name, method in FLOAT_METHODS.items()
    for suffix in (".onnx", ".pt2", ".lcz", ".pte", ".tflite")
)
OF_FLOATS = ("MobileNetV3-like", "1-D convolutions", "transformer encoder")
HEADER = [
    "model",
    "trained for",
    "file, runtime",
    "same class, %",
    "off",
    "integer layers",
    "bytes",
    "of float",
    "note",
]


def main(*words: str) -> None:
    """Print the table."""
    quiet()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    torch.set_num_threads(1)
    rows: list[list[str]] = []
    for name in MODELS:
        wanted = [
            target
            for target in QUANTIZED + (FLOAT if name in OF_FLOATS else ())
            if all(any(word in text for text in (name, target.name, target.suffix)) for word in words)
        ]
        if wanted:
            rows += _rows(name, wanted)
    show("Kinds of models by format; off: the largest difference, in steps of the output", HEADER, rows)


def _rows(name: str, targets: list[Target]) -> Iterator[list[str]]:
    kind = MODELS[name]
    seed_everything(0, verbose=False)
    dense = Learner(kind.build())
    data = DataLoader(TensorDataset(*kind.data(BATCHES * BATCH)), BATCH)
    trainer(max_epochs=3).fit(dense, data)
    inputs, _ = kind.data(SAMPLES)
    trained: dict[str, Learner | str] = {}
    whole: dict[str, int | None] = {}
    with TemporaryDirectory() as folder:
        for target in targets:
            if target.name not in trained:
                trained[target.name] = _trained(dense, target.method(), data)
            module = trained[target.name]
            if target.suffix not in whole:
                whole[target.suffix] = _bytes_of(dense, target, inputs[:4], Path(folder))
            for cells in _cells(kind, module, target, inputs, Path(folder), whole[target.suffix]):
                row = [name, target.name, *cells]
                print(" | ".join(row), file=sys.stderr, flush=True)
                yield row


def _trained(dense: Learner, callback: Callback, data: DataLoader[Any]) -> Learner | str:
    """The model after an epoch more, or the sentence that refuses it."""
    module = copy.deepcopy(dense)
    module.lr = 5e-4
    seed_everything(0, verbose=False)
    try:
        trainer(callback, max_epochs=1).fit(module, data)
    except (ValueError, TypeError) as error:
        return f"refused: {error}"
    return module.eval()


@torch.no_grad()
def _cells(
    kind: Kind, module: Learner | str, target: Target, inputs: Tensor, folder: Path, whole: int | None
) -> Iterator[list[str]]:
    if isinstance(module, str):
        yield [target.suffix, *[""] * 5, module]
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            path = export(module, folder / f"model{target.suffix}", inputs[:4], writer=target.writer)
        except (ValueError, TypeError) as error:
            yield [target.suffix, *[""] * 5, f"refused: {error}"]
            return
        except Exception as error:
            yield [target.suffix, *[""] * 5, f"FAULT: {type(error).__name__}: {error}"]
            return
    size = path.stat().st_size
    notes = [str(warning.message) for warning in caught if warning.category is UserWarning]
    if target.name == "TensorRT":
        broken = violations(path)
        notes.insert(0, f"{len(broken)} violations {broken[:3]}")
    for name, run, operators in _runs(kind, target, path):
        file = f"{target.suffix}, {name}" if name else target.suffix
        if isinstance(run, str):
            yield [file, *[""] * 5, f"refused: {run}"]
            continue
        given, expected = run([inputs])[0], module(inputs)
        same = (given.argmax(1) == expected.argmax(1)).float().mean()
        off = (given - expected).abs().max() / _step(module, expected)
        layers = "" if operators is None else f"{operators.layers} of {operators.layers + len(operators.floating)}"
        figures = [f"{100 * same:.1f}", f"{off:.1e}" if off < 0.01 else f"{off:.2f}", layers, f"{size:,}"]
        yield [file, *figures, "" if whole is None else f"{size / whole:.2f}", "; ".join(notes)]
    path.unlink()


def _bytes_of(dense: Learner, target: Target, example: Tensor, folder: Path) -> int | None:
    try:
        path = export(dense, folder / f"float{target.suffix}", example)
    except ValueError:
        return None
    return path.stat().st_size


def _runs(kind: Kind, target: Target, path: Path) -> Iterator[tuple[str, Run | str, IntegerOperators | None]]:
    """Name, run and operators of a file in each of its runtimes; those that only one profile is for are left out."""
    if target.suffix == ".pt2":
        program = torch.export.load(path).module()
        yield "torch", lambda inputs: [program(*inputs)], None
    elif target.suffix == ".lcz":
        loaded = load_compressed(Learner, path, net=kind.build()).eval()
        yield "", lambda inputs: [loaded(*inputs)], None
    for runtime in installed(find_writer(target.suffix).runtimes):
        if not target.runtime or runtime.name == target.runtime:
            try:
                run = runtime.load(path)
            except ValueError as error:
                yield runtime.name, str(error), None
            else:
                yield runtime.name, run, runtime.operators(path)


def _step(module: Learner, output: Tensor) -> Tensor:
    ends = [it.scale for place, it in quantizers_of(module).items() if place.side == "output" and it.enabled]
    last = ends[-1] if ends else None
    on_grid = last is not None and torch.allclose(output / last, (output / last).round(), atol=1e-3)
    return last if on_grid and last is not None else (output.max() - output.min()) / 255


if __name__ == "__main__":
    main(*sys.argv[1:])
