"""Exports and reports that are killed while they replace earlier files."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from random import Random
from unittest.mock import patch

import matplotlib.image
import onnx
import onnxruntime
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from benchmarks.kills.children import Mark, finish, kill
from lightning_compress import CompressionReport, PruningCallback, export, load_archive
from lightning_compress.schedules import Constant
from lightning_compress.timing import Latency
from tests.support.toys import build, fit

__all__ = ["KINDS", "Kind", "Tally", "killed"]

IMAGES = torch.rand(4, 64, generator=torch.Generator().manual_seed(0))


@dataclass
class Tally:
    """What is found after exports that were killed.

    Attributes:
        kills: exports that were killed.
        earlier: the earlier files are there.
        new: the new files are there.
        both: some files of a report are the earlier ones, some the new ones, each whole.
        lost: a file is missing, or is neither the earlier nor the new one.
        beside: another file that is not hidden lies beside them.
    """

    kills: int = 0
    earlier: int = 0
    new: int = 0
    both: int = 0
    lost: int = 0
    beside: int = 0

    def cells(self) -> dict[str, object]:
        """Heading -> cell of a table."""
        return asdict(self)


@dataclass(frozen=True)
class Kind:
    """Files that are written together.

    Args:
        title: in the table.
        write: writes the files of one of two models, 0 or 1, into a folder, and marks where that begins and ends.
        read: file name -> function that loads the file as a whole and returns what it holds.
    """

    title: str
    write: Callable[[int, Path, Mark], None]
    read: dict[str, Callable[[Path], object]]


def killed(kind: Kind, kills: int, random: Random) -> Tally:
    """Kill so many exports of model 1 over the files of model 0, each at a random instant, and look what is there."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as home:
        earlier, new = Path(home) / "earlier", Path(home) / "new"
        earlier.mkdir(), new.mkdir()
        with redirect_stdout(StringIO()):
            kind.write(0, earlier, lambda: None)  # here, so that children find everything imported
        _, seconds = finish(partial(kind.write, 1, new))
        known = [_contents(kind, folder) for folder in (earlier, new)]
        while tally.kills < kills:
            folder = Path(home) / "killed"
            shutil.copytree(earlier, folder)
            if kill(partial(kind.write, 1, folder), seconds, random):
                _count(tally, kind, folder, *known)
            shutil.rmtree(folder)
    return tally


def _count(tally: Tally, kind: Kind, folder: Path, earlier: dict[str, object], new: dict[str, object]) -> None:
    found = _contents(kind, folder)
    whole = all(found[name] in (earlier[name], new[name]) for name in kind.read)
    tally.kills += 1
    tally.lost += not whole
    tally.earlier += found == earlier
    tally.new += found == new
    tally.both += whole and found not in (earlier, new)
    tally.beside += {path.name for path in folder.glob("[!.]*")} > kind.read.keys()


def _contents(kind: Kind, folder: Path) -> dict[str, object]:
    """File name -> what the file holds, or the error of the attempt to load it."""
    return {name: _content(read, folder / name) for name, read in kind.read.items()}


def _content(read: Callable[[Path], object], path: Path) -> object:
    try:
        return read(path)
    except Exception as error:  # each format has errors of its own
        return repr(error)


def _net(number: int) -> nn.Module:
    torch.manual_seed(number)
    return nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10)).eval()


def _export(suffix: str, number: int, folder: Path, mark: Mark) -> None:
    mark()
    export(_net(number), folder / f"model{suffix}", IMAGES[:1])
    mark()


def _archived(path: Path) -> object:
    return {name: tensor.numpy().tobytes() for name, tensor in load_archive(path).items()}


def _onnx(path: Path) -> object:
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})[0].tobytes()


def _program(path: Path) -> object:
    with torch.no_grad():
        outputs: Tensor = torch.export.load(path).module()(IMAGES)
    return outputs.numpy().tobytes()


class Settled(Callback):
    """Marks the moment when the model is trained and its report begins."""

    def __init__(self, mark: Mark) -> None:
        self.mark = mark

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.mark()


def _report(number: int, folder: Path, mark: Mark) -> None:
    """Report another sparsity for each model; without timing, which writes no file and takes most of the time."""
    same = Latency(0.2, 0.1, 2.0, "cpu")
    with patch("lightning_compress.report.measures.bench.measure_latencies", lambda models, _: [same for _ in models]):
        pruning = PruningCallback(0.5 + 0.4 * number, schedule=Constant())
        fit(build(), pruning, CompressionReport(folder), Settled(mark), max_steps=2)
    mark()


KINDS = [
    Kind("`.lcz`", partial(_export, ".lcz"), {"model.lcz": _archived}),
    Kind("`.onnx`", partial(_export, ".onnx"), {"model.onnx": _onnx}),
    Kind("`.pt2`", partial(_export, ".pt2"), {"model.pt2": _program}),
    Kind(
        "files of a report",
        _report,
        {
            "report.md": Path.read_text,
            "report.json": lambda path: json.loads(path.read_text()),
            "report.png": lambda path: matplotlib.image.imread(path).tobytes(),
            "model.lcz": _archived,
        },
    ),
]
