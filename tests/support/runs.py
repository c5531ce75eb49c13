"""Runs on the CPU: saved, killed, resumed and compared."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Checkpoint
from pytorch_lightning.callbacks import Checkpoint as TwinCheckpoint
from torch import Tensor, nn

__all__ = ["Kill", "Randomness", "Save", "differing", "kill", "resumes", "same", "state", "trainer", "uninterrupted"]

ROOT = Path(__file__).parents[2]
resumes = pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")


def trainer(*callbacks: L.Callback, kind: type[L.Trainer] = L.Trainer, **options: Any) -> L.Trainer:
    """A Trainer that prints nothing and writes nothing; checkpoints are written if one of the callbacks writes them."""
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 3,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": any(isinstance(callback, Checkpoint | TwinCheckpoint) for callback in callbacks),
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
    }
    return kind(callbacks=list(callbacks), **(defaults | options))


class Save(Checkpoint):
    """Saves ``step=5.ckpt`` and so on: a checkpoint after each of the given steps."""

    def __init__(self, folder: Path | str, steps: Iterable[int], **options: Any) -> None:
        self.folder, self.steps, self.options = Path(folder), set(steps), options

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step in self.steps:
            trainer.save_checkpoint(self.folder / f"step={trainer.global_step}.ckpt", **self.options)


class Randomness(L.Callback):
    """Carries the state of the random generator (dropout's) through checkpoints."""

    def __init__(self) -> None:
        self.loaded: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"torch": torch.get_rng_state()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.loaded = state_dict["torch"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.loaded is not None:
            torch.set_rng_state(self.loaded)


class Kill(L.Callback):
    """Kills the process after a step, as a scheduler kills a job."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def kill(code: str, *arguments: object) -> None:
    """Run code in a process of its own, which a :class:`Kill` has to end."""
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    assert subprocess.run(command, cwd=ROOT).returncode == -signal.SIGKILL


def state(module: nn.Module) -> dict[str, Tensor]:
    """All numbers of a model: its state dict, the grids of its weights, the ranges of its activation quantizers."""
    # Imported here: a process that has to do without the package builds Trainers as well.
    from lightning_compress.quantization.activations.quantizers import quantizers_of
    from lightning_compress.quantization.weights import grids_of

    found = {name: value.detach().clone() for name, value in module.state_dict().items()}
    for place, quantizer in quantizers_of(module).items():
        # A quantizer of rows has no range.
        bounds = (getattr(quantizer, key, torch.tensor(0.0)) for key in ("low", "high"))
        found[str(place)] = torch.stack([torch.tensor(float(quantizer.bits)), *bounds]).detach()
    for name, grid in grids_of(module).items():
        found |= {f"{name} grid {key}": value for key, value in vars(grid).items() if isinstance(value, Tensor)}
    return found


def differing(one: nn.Module, other: nn.Module) -> list[str]:
    """Names of the numbers in which two models differ, by a bit or by a shape, or that one of them lacks."""
    ours, theirs = state(one), state(other)
    shared = ours.keys() & theirs.keys()
    return sorted(
        (ours.keys() ^ theirs.keys()) | {name for name in shared if not torch.equal(ours[name], theirs[name])}
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two models are bit-identical."""
    return not differing(one, other)


def uninterrupted(run: Callable[..., nn.Module], folder: Path, steps: Iterable[int]) -> nn.Module:
    """The model of a run, after asserting that the run resumed after each of the steps ends in the same bits.

    Args:
        run: ``run(*callbacks, ckpt_path=None)`` builds a module and callbacks of its own, trains the module with these
            and with the given callbacks, and returns it.
        folder: for the checkpoints.
        steps: after which the uninterrupted run is saved.
    """
    steps = list(steps)
    whole = run(Save(folder, steps))
    for step in steps:
        resumed = run(ckpt_path=folder / f"step={step}.ckpt")
        assert not (names := differing(whole, resumed)), f"resumed after step {step}, the run differs in {names}"
    return whole
