"""Exports and reports that are killed while they replace earlier files."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass
from functools import cache, partial
from io import StringIO
from pathlib import Path
from random import Random
from unittest.mock import patch

import onnx
import onnxruntime
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import BertConfig, BertForSequenceClassification

from benchmarks.kills.children import Mark, finish, kill
from lightning_compress import CompressionReport, PruningCallback, QATCallback, export, load_archive
from lightning_compress.deploy.runtimes import ExecuTorch, LiteRT, Runtime
from lightning_compress.deploy.runtimes.silence import silenced
from lightning_compress.deploy.writers.compressed_tensors import CompressedTensors
from lightning_compress.schedules import Constant
from lightning_compress.timing import Latency
from tests.support.toys import build, fit

__all__ = ["KINDS", "Kind", "Tally", "killed"]

IMAGES = torch.rand(4, 64, generator=torch.Generator().manual_seed(0))
TOKENS = torch.randint(64, (4, 8), generator=torch.Generator().manual_seed(0))


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
        hidden: hidden drafts that all kills together left beside them.
        left: those of them that the next export does not delete.
        temporary: entries that all kills together left in the system's folder for temporary files.
    """

    kills: int = 0
    earlier: int = 0
    new: int = 0
    both: int = 0
    lost: int = 0
    beside: int = 0
    hidden: int = 0
    left: int = 0
    temporary: int = 0

    def cells(self) -> dict[str, object]:
        """Heading -> cell of a table."""
        return asdict(self)


@dataclass(frozen=True)
class Kind:
    """Files and folders that are written together.

    Args:
        title: in the table.
        write: writes the files of one of two models, 0 or 1, into a folder, and marks where that begins and ends.
        read: name -> function that loads the file or folder as a whole and returns what it holds.
        forks: whether a process that has written such files can be forked; JAX, which converts ``.tflite``, then hangs.
    """

    title: str
    write: Callable[[int, Path, Mark], None]
    read: dict[str, Callable[[Path], object]]
    forks: bool = True


def killed(kind: Kind, kills: int, random: Random) -> Tally:
    """Kill so many exports of model 1 over the files of model 0, each at a random instant, and look what is there."""
    tally = Tally()
    with tempfile.TemporaryDirectory() as home:
        earlier, new, folder, temporary = (Path(home) / name for name in ("earlier", "new", "killed", "temporary"))
        for made in (earlier, new, folder, temporary):
            made.mkdir()
        with _temporary_files_in(temporary):
            _write_earlier(kind, earlier)
            _, seconds = finish(partial(kind.write, 1, new))
            known = [_contents(kind, made) for made in (earlier, new)]
            _require_differing(*known)
            before = len(list(temporary.iterdir()))
            while tally.kills < kills:
                _restore(earlier, folder)
                if kill(partial(kind.write, 1, folder), seconds, random):
                    _count(tally, kind, folder, *known)
            tally.temporary = len(list(temporary.iterdir())) - before
            tally.hidden = len(_hidden(folder))
            finish(partial(kind.write, 1, folder))
            tally.left = len(_hidden(folder))
    return tally


def _write_earlier(kind: Kind, folder: Path) -> None:
    """Write the files of model 0 in this process, so that children find everything imported, or in a child."""
    if kind.forks:
        with redirect_stdout(StringIO()):
            kind.write(0, folder, lambda: None)
    else:
        finish(partial(kind.write, 0, folder))


def _require_differing(earlier: dict[str, object], new: dict[str, object]) -> None:
    """End the command where the two models cannot be told apart, or a file of theirs is missing."""
    same = [name for name in earlier if earlier[name] == new[name]]
    if same:
        raise AssertionError(f"need files that differ between two models, got {same}: {[earlier[n] for n in same]}")


@contextmanager
def _temporary_files_in(folder: Path) -> Iterator[None]:
    with patch.dict(os.environ, TMPDIR=str(folder)), patch.object(tempfile, "tempdir", str(folder)):
        yield


def _restore(earlier: Path, folder: Path) -> None:
    """Put the earlier files in the place of those that the last killed export left; its hidden drafts stay."""
    for path in folder.glob("[!.]*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(earlier, folder, dirs_exist_ok=True)


def _hidden(folder: Path) -> list[Path]:
    return list(folder.glob(".*"))


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


def _run(runtime: Runtime, path: Path) -> object:
    with silenced():
        return [output.numpy().tobytes() for output in runtime.load(path)([IMAGES[:1]])]


def _tensors(path: Path) -> object:
    return {name: tensor.numpy().tobytes() for name, tensor in load_file(path).items()}


@cache
def _transformers() -> list[LightningModule]:
    """Two small models of transformers with 4-bit weights."""
    return [_transformer(seed) for seed in (0, 1)]


def _transformer(seed: int) -> LightningModule:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 128}
    module = Classifier(BertForSequenceClassification(BertConfig(**sizes, vocab_size=64)))
    bits = QATCallback(4, activation_bits=None, include=("*layer*dense.weight",), schedule=Constant())
    trainer = Trainer(accelerator="cpu", max_steps=2, callbacks=[bits], logger=False, enable_checkpointing=False)
    trainer.fit(module, DataLoader(TOKENS, 2))
    return module.eval()


class Classifier(LightningModule):
    """Trains a model of transformers to put out zeros."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        outputs: Tensor = self.model(input_ids=batch).logits
        return outputs.square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), 1e-2)


def _export_folder(number: int, folder: Path, mark: Mark) -> None:
    module = _transformers()[number]
    mark()
    export(module, folder / "model", writer=CompressedTensors())
    mark()


def _pretrained(path: Path) -> object:
    with silenced(), torch.no_grad():
        outputs: Tensor = BertForSequenceClassification.from_pretrained(path).eval()(input_ids=TOKENS).logits
    return outputs.numpy().tobytes()


def _package(path: Path) -> object:
    """The weights: Core ML does not run here."""
    return next(path.rglob("weight.bin")).read_bytes()


def _pictures(path: Path) -> object:
    return {file.name: file.read_bytes() for file in sorted(path.iterdir())}


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
    Kind("`.pte`", partial(_export, ".pte"), {"model.pte": partial(_run, ExecuTorch())}),
    Kind("`.tflite`", partial(_export, ".tflite"), {"model.tflite": partial(_run, LiteRT())}, forks=False),
    Kind("`.safetensors`", partial(_export, ".safetensors"), {"model.safetensors": _tensors}),
    Kind("`.mlpackage`", partial(_export, ".mlpackage"), {"model.mlpackage": _package}),
    Kind("folder for transformers", _export_folder, {"model": _pretrained}),
    Kind(
        "files of a report",
        _report,
        {
            "report.md": Path.read_text,
            "report.json": lambda path: json.loads(path.read_text()),
            "report.html": Path.read_text,
            "pictures": _pictures,
            "model.lcz": _archived,
        },
    ),
]
