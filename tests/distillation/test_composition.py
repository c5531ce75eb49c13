"""Distillation beside compression, and from YAML."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningCLI

from lightning_compress import ChannelPruningCallback, LowRankCallback, PruningCallback
from lightning_compress.cli.lightning import CompressionCLI
from lightning_compress.distillation import EMA, DistillationCallback, DistillationModule
from lightning_compress.schedules import Linear
from tests.support.runs import Randomness, resumes, uninterrupted
from tests.support.students import Net, Student, loader, trainer
from tests.support.toys import build, fit


def zeros(student: Student) -> float:
    weights = torch.cat([student.net.conv.weight.flatten(), student.net.head.weight.flatten()])
    return (weights == 0).float().mean().item()


@pytest.mark.parametrize("front", ["module", "callback"])
def test_a_student_is_pruned_while_its_dense_twin_teaches(front: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = Student()
    dense = copy.deepcopy(student)
    callbacks: list[Any] = [
        PruningCallback(sparsity=0.5, every_n_steps=1, include=("net.*",)),
        ModelCheckpoint(tmp_path, filename="last"),
    ]
    module: LightningModule = student
    if front == "module":
        module = DistillationModule(student, dense)
    else:
        callbacks.append(DistillationCallback(dense))
    trainer(*callbacks, max_epochs=3).fit(module, loader(), loader())
    assert zeros(student) == pytest.approx(0.5, abs=1 / 48)
    assert zeros(dense) == 0
    assert zeros(Student.load_from_checkpoint(tmp_path / "last.ckpt")) == zeros(student)


SMALLER = {
    "channels": lambda: ChannelPruningCallback(0.5, round_to=4, schedule=Linear(0.1, 0.6), every_n_steps=3),
    "low rank": lambda: LowRankCallback(schedule=Linear(0.1, 0.6), every_n_steps=3),
}


@resumes
@pytest.mark.parametrize("front", ["module", "callback"])
@pytest.mark.parametrize("method", SMALLER)
def test_a_student_that_its_average_teaches_resumes_at_the_step_that_changes_its_layers(
    method: str, front: str, tmp_path: Path
) -> None:
    shapes = set()

    def run(*callbacks: Any, ckpt_path: Path | None = None) -> LightningModule:
        student = build()
        module: LightningModule = student
        ours = [SMALLER[method](), Randomness()]
        if front == "module":
            module = DistillationModule(student, EMA(0.9), alpha=0.5)
        else:
            ours.append(DistillationCallback(EMA(0.9), alpha=0.5))
        fit(module, *ours, *callbacks, ckpt_path=ckpt_path)
        return student

    uninterrupted(run, tmp_path, range(20, 25))
    for step in range(20, 25):
        state = torch.load(tmp_path / f"step={step}.ckpt", weights_only=True)["state_dict"]
        shapes.add(tuple(tensor.shape for tensor in state.values()))
    assert len(shapes) == 2  # one of these steps has changed them


class WidthStudent(Student):
    """Reads its hyperparameters while it is built, as many modules do."""

    def __init__(self, width: int = 4, lr: float = 0.05) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = Net(self.hparams.width)


class Data(LightningDataModule):
    def train_dataloader(self) -> Any:
        return loader()

    def val_dataloader(self) -> Any:
        return loader()


ARGUMENTS = """
teacher:
  class_path: lightning_compress.distillation.from_checkpoint
  init_args: {cls: tests.distillation.test_composition.WidthStudent, path: PATH}
alpha: 0.5
task_weight: 1.0
losses:
  - {class_path: lightning_compress.distillation.losses.SoftTargets, init_args: {temperature: 2.0}}
  - loss: lightning_compress.distillation.losses.mse
    student_layers: net.norm
    teacher_layers: net.norm
    weight: 0.1
    schedule: {class_path: lightning_compress.schedules.Linear}
    regressor: {dim: 1}
  - loss: {class_path: lightning_compress.distillation.losses.Decoupled}
    labels: {class_path: lightning_compress.distillation.Item, init_args: {key: 1}}
  - lightning_compress.distillation.losses.cosine
metrics: [{class_path: lightning_compress.metrics.Agreement}]
"""
STUDENT = {"class_path": "tests.distillation.test_composition.WidthStudent", "init_args": {"width": 5}}
TRAINER = {
    "accelerator": "cpu",
    "devices": 1,
    "max_epochs": 1,
    "logger": False,
    "enable_checkpointing": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "log_every_n_steps": 1,
}


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("sys.argv", ["program"])
    one = trainer(max_steps=1)
    one.fit(WidthStudent(width=6), loader(), loader())
    one.save_checkpoint(tmp_path / "teacher.ckpt")
    return yaml.safe_load(ARGUMENTS.replace("PATH", str(tmp_path / "teacher.ckpt")))


def run(path: Path, cli: type[LightningCLI], model: Any, callbacks: Any) -> LightningCLI:
    config = {"seed_everything": 0, "model": model, "trainer": {**TRAINER, "callbacks": callbacks}}
    path.write_text(yaml.safe_dump(config))
    return cli(None, Data, args=["fit", "--config", str(path)], save_config_callback=None)


def check(cli: LightningCLI) -> None:
    logged = {name for name in cli.trainer.callback_metrics if name.startswith("distillation/")}
    terms = {
        f"distillation/{name}" for name in ("task", "soft_targets", "mse/net.norm", "cosine", "decoupled", "agreement")
    }
    assert logged == terms
    assert cli.model.net.head.in_features == 5
    assert cli.model.hparams["width"] == 5


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Lightning's use of jsonargparse
def test_callback_from_yaml(arguments: dict[str, Any], tmp_path: Path) -> None:
    callback = {"class_path": "lightning_compress.distillation.DistillationCallback", "init_args": arguments}
    check(run(tmp_path / "config.yaml", LightningCLI, STUDENT, [callback]))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_module_from_yaml(arguments: dict[str, Any], tmp_path: Path) -> None:
    init_args = {"student": STUDENT, **arguments}
    model = {"class_path": "lightning_compress.distillation.DistillationModule", "init_args": init_args}
    cli = run(tmp_path / "config.yaml", CompressionCLI, model, [])
    check(cli)
    cli.trainer.save_checkpoint(tmp_path / "student.ckpt")
    assert WidthStudent.load_from_checkpoint(tmp_path / "student.ckpt").net.head.in_features == 5
