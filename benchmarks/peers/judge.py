"""Measures files from outside, all with the same code: zeros, accuracy, bytes, latency."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers.recipe import Data, Recipe, accuracy
from lightning_compress import export
from lightning_compress.deploy.runtimes import OnnxRuntime, OpenVINO, Runtime
from lightning_compress.timing import time_ratio

__all__ = ["judge_files", "judge_state", "zeros_of"]

_BATCHES = (1, 64)


def judge_state(folder: Path, recipe: Recipe, data: Data) -> dict[str, Any]:
    """Figures of the state dict in ``folder``, loaded into the plain network; of random images, little effort."""
    state = torch.load(folder / "state.pt", weights_only=True)
    network = recipe.network()
    missing, others = network.load_state_dict(state, strict=False)
    if missing:
        return {"error": f"the state dict has no {', '.join(missing)}"}
    found: dict[str, Any] = {
        "accuracy": accuracy(network.eval(), data),
        "zeros": zeros_of(state, network.state_dict()),
        "other_entries": len(others),
        "bytes": (folder / "state.pt").stat().st_size,
        "zstd": _zstd(folder / "state.pt", 1 if recipe.invented else 19),
        "lcz": export(network, folder / "model.lcz").stat().st_size,
    }
    if (folder / "resumed.pt").is_file():
        found["resumed"] = zeros_of(torch.load(folder / "resumed.pt", weights_only=True), network.state_dict())
    return found


def zeros_of(state: dict[str, Tensor], network: dict[str, Tensor]) -> float:
    """Fraction of zeros among the matrices and kernels of the plain network."""
    weights = torch.cat([state[name].flatten() for name, tensor in network.items() if tensor.ndim > 1])
    return (weights == 0).double().mean().item()


def _zstd(path: Path, level: int) -> int | None:
    """Bytes under ``zstd``, None if there is no such program."""
    if shutil.which("zstd") is None:
        return None
    return len(
        subprocess.run(["zstd", f"-{level}", "--quiet", "--stdout", path], capture_output=True, check=True).stdout
    )


def judge_files(folder: Path, dense: Path, data: Data) -> dict[str, Any]:
    """Figures of the exported file in ``folder`` in each runtime that reads it, beside the float file in ``dense``."""
    paths = [path for path in folder.iterdir() if path.stem == "model" and path.suffix in (".onnx", ".xml")]
    if not paths:
        return {"error": "no file was written"}
    runtimes = [OpenVINO()] if paths[0].suffix == ".xml" else [OnnxRuntime(), OpenVINO()]
    beside = [path for path in folder.iterdir() if path.name.startswith("model.")]  # weights may lie in another file
    return {
        "bytes": sum(path.stat().st_size for path in beside),
        "runtimes": {one.name: _in_runtime(one, paths[0], dense / "model.onnx", data) for one in runtimes},
    }


def _in_runtime(runtime: Runtime, path: Path, dense: Path, data: Data) -> dict[str, Any]:
    try:
        mine, theirs = (_one_tensor(runtime.load(one)) for one in (path, dense))
        latencies = {f"latency_{batch}": _ratio(mine, theirs, data.test_images[:batch]) for batch in _BATCHES}
        return {"accuracy": accuracy(mine, data), **latencies}
    except Exception as error:  # a runtime that cannot run the file is a result
        return {"error": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:120]}"}


def _one_tensor(run: Callable[[list[Tensor]], list[Tensor]]) -> Callable[[Tensor], Tensor]:
    return lambda images: run([images])[0]


def _ratio(mine: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], images: Tensor) -> float:
    return time_ratio(partial(mine, images), partial(theirs, images), rounds=30, clock=time.process_time)
