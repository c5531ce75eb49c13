"""A virtual environment for each peer, with pinned versions."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ENVIRONMENTS", "PEERS", "Environment", "Peer", "PeerError"]

_TORCH = "torch==2.13.0"
_ONNX = ("onnx==1.23.2", "onnxscript==0.7.2")


class PeerError(Exception):
    """A peer cannot be installed, or its process ends without a result."""


@dataclass(frozen=True)
class Environment:
    """Packages that are installed together.

    Attributes:
        name: of the folder.
        packages: with versions; none of them is the environment of this process.
    """

    name: str
    packages: tuple[str, ...] = ()

    def python(self, cache: Path) -> str:
        """The interpreter; the environment is made if there is none.

        Raises:
            PeerError: pip fails.
        """
        if not self.packages:
            return sys.executable
        folder = cache / self.name
        python, done = folder / "bin" / "python", folder / "installed.txt"
        wanted = "\n".join((_TORCH, *self.packages))
        if not done.is_file() or done.read_text() != wanted:
            print(f"installing {', '.join(self.packages)} into {folder}", flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            # torch is pinned in each call, so that pip never takes another build for the sake of a peer.
            command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
            found = subprocess.run([*command, _TORCH, *self.packages], capture_output=True, text=True)
            if found.returncode:
                raise PeerError(f"pip: {_last_error(found.stderr)}")
            done.write_text(wanted)
        return str(python)

    def versions(self, cache: Path) -> dict[str, str]:
        """Package -> installed version, of torch and the packages that are named."""
        names = [one.split("==")[0] for one in (_TORCH, *(self.packages or ("lightning",)))]
        program = f"import json, importlib.metadata as m; print(json.dumps({{n: m.version(n) for n in {names!r}}}))"
        found = subprocess.run([self.python(cache), "-c", program], capture_output=True, text=True, check=True)
        versions: dict[str, str] = json.loads(found.stdout)
        return versions


def _last_error(text: str) -> str:
    errors = [line for line in text.splitlines() if line.startswith("ERROR")] or text.splitlines()[-1:] or ["no output"]
    return errors[0].removeprefix("ERROR: ")[:160]


_HERE = Environment("here")
ENVIRONMENTS = {
    "here": _HERE,
    "nncf": Environment("nncf", ("nncf==3.4.0", "openvino==2026.4.1", "torchao==0.18.0")),
    "coremltools": Environment("coremltools", ("coremltools==9.0",)),
    "fasterai": Environment("fasterai", ("fasterai==0.4.1", "fastai==2.8.12")),
    "torchao": Environment("torchao", ("torchao==0.18.0", *_ONNX)),
    "brevitas": Environment("brevitas", ("brevitas==0.13.4", "onnxoptimizer==0.4.2", *_ONNX)),
    "modelopt": Environment(
        "modelopt", ("nvidia-modelopt==0.47.0", "requests==2.34.2", "huggingface-hub==2.4.0", *_ONNX)
    ),
}
"""Name -> environment; the packages beside a peer are those that it needs and does not declare."""


@dataclass(frozen=True)
class Peer:
    """One line of a table.

    Attributes:
        row: folder of its file.
        name: of its file.
        title: in the tables.
        environment: where it runs.
    """

    row: str
    name: str
    title: str
    environment: Environment = _HERE


PEERS = (
    Peer("pruning", "dense", "no pruning"),
    Peer("pruning", "ours", "`PruningCallback`"),
    Peer("pruning", "model_pruning", "Lightning's `ModelPruning`"),
    Peer("pruning", "torch_prune", "`torch.nn.utils.prune` by hand"),
    Peer("pruning", "nncf", "NNCF", ENVIRONMENTS["nncf"]),
    Peer("pruning", "coremltools", "coremltools", ENVIRONMENTS["coremltools"]),
    Peer("pruning", "fasterai", "fasterai", ENVIRONMENTS["fasterai"]),
    Peer("quantization", "dense", "float"),
    Peer("quantization", "ours", "`QATCallback`"),
    Peer("quantization", "ours_openvino", "`QATCallback`, `profile=OpenVINO()`"),
    Peer("quantization", "pt2e", "torchao, PT2E", ENVIRONMENTS["torchao"]),
    Peer("quantization", "brevitas", "Brevitas", ENVIRONMENTS["brevitas"]),
    Peer("quantization", "nncf", "NNCF", ENVIRONMENTS["nncf"]),
    Peer("quantization", "modelopt", "NVIDIA Model Optimizer", ENVIRONMENTS["modelopt"]),
)
"""All lines, in the order of the tables; in each row the first is the one without a tool."""
