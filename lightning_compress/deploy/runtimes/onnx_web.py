"""ONNX Runtime Web, which runs ``.onnx`` files in browsers and Node.js."""

from __future__ import annotations

import json
import shutil
import subprocess
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightning_compress.deploy.onnx_passes.names import aliases, origin
from lightning_compress.deploy.runtimes.interface import IntegerOperators, Run, Runtime, counted
from lightning_compress.deploy.runtimes.onnx_runtime import is_float_layer, is_integer

__all__ = ["OnnxRuntimeWeb"]

_PROGRAM = Path(__file__).with_suffix(".cjs")
_INSTALL = "install Node.js and run `npm install onnxruntime-web` in this folder, or name its node_modules in NODE_PATH"


class OnnxRuntimeWeb(Runtime):
    """ONNX Runtime Web in Node.js: the WebAssembly that browsers run, on one thread.

    Node.js finds the package ``onnxruntime-web`` in ``node_modules`` of the working folder, of those above it, or of
    ``NODE_PATH``.
    """

    name = "ONNX Runtime Web"
    package = "onnxruntime-web"

    def present(self) -> bool:
        node = shutil.which("node")
        if node is None:
            return False
        look = "require('node:module').createRequire(process.cwd() + '/').resolve('onnxruntime-web')"
        return subprocess.run([node, "-e", look], capture_output=True, check=False).returncode == 0  # noqa: S603

    def load(self, path: Path) -> Run:
        """Load a file; a process of Node.js runs it until the returned function is forgotten.

        Raises:
            ImportError: Node.js or the package is missing.
            ValueError: the runtime does not load the file, or does not take the inputs.
        """
        return _Session(path).run

    def operators(self, path: Path) -> IntegerOperators:
        from onnxscript import ir

        session = _Session(path, "profile")
        session.run([_zeros(entry) for entry in session.inputs])
        events = [event for event in json.loads(session.profile) if event["cat"] == "Node"]
        layers = aliases(ir.load(path))
        kinds = [
            (event["args"]["op_name"], origin(event["name"].removesuffix("_kernel_time"), layers)) for event in events
        ]
        return counted(kinds, is_integer, is_float_layer)


class _Session:
    """A process of Node.js that has loaded a file."""

    def __init__(self, path: Path, *options: str) -> None:
        node = shutil.which("node")
        if node is None:
            raise ImportError(f"need the command node to run {path.name} in ONNX Runtime Web, got none: {_INSTALL}")
        command = [node, str(_PROGRAM), str(path), *options]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)  # noqa: S603
        weakref.finalize(self, _end, process)
        assert process.stdin is not None  # noqa: S101  (a pipe)
        assert process.stdout is not None  # noqa: S101  (a pipe)
        self._path, self._process = path, process
        self._requests, self._answers = process.stdin, process.stdout
        self.inputs: list[dict[str, Any]] = self._answer()["inputs"]
        self.profile = ""

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        arrays = [tensor.contiguous().numpy() for tensor in inputs]
        if len(arrays) != len(self.inputs):
            names = ", ".join(entry["name"] for entry in self.inputs)
            raise ValueError(f"need a tensor for each input of {self._path.name}, {names}, got {len(arrays)}")
        header = {"tensors": [{"type": str(array.dtype), "dims": array.shape} for array in arrays]}
        text = json.dumps(header).encode()
        self._requests.write(len(text).to_bytes(4, "little") + text)
        for array in arrays:
            self._requests.write(array.tobytes())
        self._requests.flush()
        found = self._answer()
        self.profile = found["profile"]
        return [self._tensor(np.dtype(entry["type"]), entry["dims"]) for entry in found["tensors"]]

    def _tensor(self, kind: np.dtype[Any], dims: Sequence[int]) -> Tensor:
        array = np.frombuffer(self._read(kind.itemsize * int(np.prod(dims, dtype=np.int64))), kind)
        return torch.from_numpy(array.reshape(dims).copy())

    def _answer(self) -> dict[str, Any]:
        header: dict[str, Any] = json.loads(self._read(int.from_bytes(self._read(4), "little")))
        if header.get("missing"):
            raise ImportError(f"need the npm package onnxruntime-web to run {self._path.name}, got none: {_INSTALL}")
        if "error" in header:
            raise ValueError(f"need {self._path.name} to run in ONNX Runtime Web, got {header['error']}")
        return header

    def _read(self, length: int) -> bytes:
        found = self._answers.read(length)
        if len(found) < length:
            raise ValueError(
                f"need {self._path.name} to run in ONNX Runtime Web, got an end of Node.js with code "
                f"{self._process.wait()}: the model may need more memory than WebAssembly has, 4 GiB"
            )
        return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process, and close its pipes."""
    process.kill()
    process.communicate()


def _zeros(entry: dict[str, Any]) -> Tensor:
    """Zeros of the type and shape of an input; a free dimension has one entry."""
    shape = [dim if isinstance(dim, int) else 1 for dim in entry["shape"]]
    return torch.from_numpy(np.zeros(shape, entry["type"]))
