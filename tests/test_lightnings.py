"""Both Lightnings: each alone is enough, and their classes in one Trainer are refused."""

import fcntl
import importlib
import logging
import os
import pty
import select
import struct
import subprocess
import sys
import termios
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch
import lightning_utilities.core.rank_zero as rank_zero
import pyte
import pytest
import pytorch_lightning
import torch
from rich.console import Console
from rich.progress import Progress
from torch.utils.data import DataLoader
from tqdm import tqdm

from lightning_compress import (
    CompressionReport,
    DistillationCallback,
    DistillationModule,
    PruningCallback,
    lightnings,
)
from lightning_compress.distillation.losses import mse
from lightning_compress.lightnings import package_of

PACKAGES = [lightning.pytorch, pytorch_lightning]
both = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)


def net(package):
    class Net(package.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(x)

        def training_step(self, batch, batch_idx):
            return self(batch).square().mean()

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    return Net()


def fit(package, module, *callbacks):
    trainer = package.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )
    trainer.fit(module, DataLoader(torch.randn(4, 4), 2))
    return trainer


@both
@pytest.mark.parametrize(
    "ours",
    [lambda: PruningCallback(0.5), CompressionReport, lambda: DistillationCallback(torch.nn.Linear(4, 4))],
    ids=["weights", "report", "distillation"],
)
@pytest.mark.parametrize(
    ("make", "named"),
    [
        (
            lambda other: other.callbacks.ModelCheckpoint(monitor="loss"),
            "callbacks.model_checkpoint import ModelCheckp",
        ),
        (lambda other: type("Mine", (other.Callback,), {})(), "callbacks.callback import Callback"),
    ],
    ids=["ModelCheckpoint", "own"],
)
def test_a_callback_of_the_other_package_is_refused_with_the_import_to_change(package, ours, make, named):
    (other,) = [one for one in PACKAGES if one is not package]
    importlib.import_module(f"{other.__name__}.callbacks")
    callback = make(other)
    words = f"got {type(callback).__name__} of {other.__name__}: write from {package.__name__}.{named}"
    with pytest.raises(TypeError, match=words):
        fit(package, net(package), ours(), callback)


@both
@pytest.mark.parametrize("taught", [False, True])
def test_a_module_of_the_other_package_never_trains(package, taught):
    """Lightning refuses it before any callback is asked."""
    (other,) = [one for one in PACKAGES if one is not package]
    with pytest.raises(TypeError, match="`model` must be a `LightningModule`"):
        fit(package, DistillationModule(net(other), net(package)) if taught else net(other), PruningCallback(0.5))


def test_a_trainer_of_an_old_release_is_refused(monkeypatch):
    monkeypatch.setattr("lightning_compress.lightnings.PACKAGES", ("lightning.pytorch",))
    with pytest.raises(ImportError, match=r"need pytorch_lightning 2\.6\.4 or later, got an older one"):
        fit(pytorch_lightning, net(pytorch_lightning), PruningCallback(0.5))


@both
def test_a_taught_module_is_of_the_package_of_its_student(package):
    module = DistillationModule(net(package), net(PACKAGES[0]), losses=[mse])
    assert isinstance(module, DistillationModule)
    assert [isinstance(module, one.LightningModule) for one in PACKAGES] == [one is package for one in PACKAGES]
    assert package_of(type(module)) == package.__name__
    fit(package, module)


@both
def test_messages_stay_with_the_logger_of_the_package_that_was_imported_first(package, monkeypatch):
    (other,) = [one for one in PACKAGES if one is not package]
    monkeypatch.setattr(lightnings, "compare_version", lambda *_: True)
    monkeypatch.setattr(rank_zero, "log", logging.getLogger(f"{other.__name__}.utilities.rank_zero"))
    monkeypatch.delitem(sys.modules, other.__name__)
    lightnings._installed()
    assert rank_zero.log.name == f"{package.__name__}.utilities.rank_zero"


ROOT = Path(__file__).parents[1]
ALONE = """
import sys
sys.modules[sys.argv[1].partition(".")[0]] = None
import importlib
import lightning_compress
from lightning_compress.lightnings import PACKAGES

assert PACKAGES == (sys.argv[2],), PACKAGES
package = importlib.import_module(sys.argv[2])
for name in lightning_compress.__all__:
    getattr(lightning_compress, name)

import torch
from torch.utils.data import DataLoader

class Net(package.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(8, 8)

    def forward(self, x):
        return self.layer(x)

    def training_step(self, batch, batch_idx):
        return self(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

trainer = package.Trainer(
    accelerator="cpu", max_epochs=4, logger=False, enable_progress_bar=False, enable_model_summary=False,
    callbacks=[lightning_compress.PruningCallback(0.75)], default_root_dir=sys.argv[3],
)
mse = torch.nn.functional.mse_loss
module = lightning_compress.DistillationModule(Net(), torch.nn.Linear(8, 8), losses=[lambda a, b: mse(a, b)])
trainer.fit(module, DataLoader(torch.randn(8, 8), 2))
trainer.save_checkpoint(sys.argv[3] + "/end.ckpt")
loaded = lightning_compress.load_compressed(Net, sys.argv[3] + "/end.ckpt")
assert (loaded.layer.weight == 0).sum() == 48
importlib.import_module("lightning_compress.cli." + sys.argv[2].partition(".")[0])
assert sys.modules[sys.argv[1].partition(".")[0]] is None
"""


@both
def test_each_alone_is_enough(package, tmp_path):
    (other,) = [one for one in PACKAGES if one is not package]
    command = [sys.executable, "-W", "ignore", "-c", ALONE, other.__name__, package.__name__, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_none_is_not_enough():
    code = """
import sys
sys.modules["lightning"] = sys.modules["pytorch_lightning"] = None
import lightning_compress.lightnings
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert "ImportError: need lightning or pytorch_lightning, 2.6.4 or later: pip install lightning" in done.stderr


LINE = "ChannelPruningCallback: channels removed, 0.416 of the MACs are left"


def rich_bar(stream):
    console = Console(file=stream, force_terminal=True, width=80)
    return Progress(console=console, auto_refresh=False)


@contextmanager
def tqdm_bar(stream):
    with tqdm(total=3, file=stream, ncols=80, desc="Epoch 0") as bar:
        bar.update()
        yield bar


@pytest.mark.parametrize("bar", [rich_bar, tqdm_bar])
def test_lines_stand_whole_above_a_live_bar(bar, monkeypatch):
    """In a terminal of 80 columns, with a handler of logging that has kept the stream from before the bar."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(follower, "w", buffering=1) as stream, os.fdopen(leader, "rb", buffering=0) as screen:
        monkeypatch.setattr(sys, "stderr", stream)
        logger = logging.getLogger("lightning.pytorch")
        handler = logging.StreamHandler(stream)
        logger.addHandler(handler)
        try:
            with bar(stream) as live:
                if bar is rich_bar:
                    live.add_task("Epoch 0", total=3)
                    live.refresh()
                lightnings.rank_zero_info(LINE)
                live.refresh()
                assert handler.stream is stream
        finally:
            logger.removeHandler(handler)
        stream.flush()
        terminal = pyte.Screen(80, 24)
        bytes_of_terminal = pyte.ByteStream(terminal)
        while select.select([screen], [], [], 0)[0]:
            bytes_of_terminal.feed(screen.read(4096))
    lines = [line.rstrip() for line in terminal.display if line.strip()]
    assert [line for line in lines if LINE[:8] in line] == [LINE]
    assert sum("Epoch 0" in line for line in lines) == 1
