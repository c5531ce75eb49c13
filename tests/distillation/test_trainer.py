"""Distillation with the features of a Trainer: precision, accumulation, averages, tuners, ranks, compilers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.tuner import Tuner
from torch import nn

from lightning_compress.distillation import DistillationModule
from lightning_compress.metrics import Agreement
from tests.support.distributed import run_distributed
from tests.support.runs import same, state
from tests.support.students import HINTS, ManualStudent, Student, data, loader, seeded, teacher, trainer


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precision(precision: Any) -> None:
    student = seeded()
    trainer(precision=precision).fit(DistillationModule(student, teacher(), losses=HINTS), loader(), loader())
    assert all(parameter.isfinite().all() for parameter in student.parameters())


def test_accumulated_gradients_equal_one_large_batch() -> None:
    students = []
    for batches, batch_size in ((2, 8), (1, 16)):
        student = seeded()
        student.net.drop = student.net.norm = nn.Identity()
        module = DistillationModule(student, teacher())
        data_loader = torch.utils.data.DataLoader(data(), batch_size=batch_size)
        trainer(accumulate_grad_batches=batches).fit(module, data_loader, loader())
        students.append(student)
    for a, b in zip(*(student.parameters() for student in students), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.filterwarnings("ignore:Checkpoint directory")
def test_averaged_weights_are_the_students(tmp_path: Path) -> None:
    student = seeded()
    callbacks = [EMAWeightAveraging(decay=0.5), ModelCheckpoint(tmp_path, filename="last")]
    one = trainer(*callbacks)
    one.fit(DistillationModule(student, teacher(), losses=HINTS), loader(), loader())
    assert same(Student.load_from_checkpoint(tmp_path / "last.ckpt"), student)
    one.fit_loop.max_epochs = 2
    one.fit(DistillationModule(seeded(), teacher(), losses=HINTS), loader(), loader(), ckpt_path=tmp_path / "last.ckpt")


def test_lr_find_and_fast_dev_run(tmp_path: Path) -> None:
    student = seeded()
    module = DistillationModule(student, teacher())
    tuned = trainer(default_root_dir=tmp_path, max_epochs=50)
    found = Tuner(tuned).lr_find(module, loader(), loader(), num_training=20)
    assert student.hparams.lr == found.suggestion() != 0.05
    trainer(fast_dev_run=True).fit(module, loader(), loader())


def test_distributed_ranks_agree() -> None:
    for cls in (Student, ManualStudent):
        ranks = run_distributed(_fit_on_a_rank, cls)
        assert ranks[0].keys() == ranks[1].keys()
        assert all(torch.equal(ranks[0][name], ranks[1][name]) for name in ranks[0] if "running" not in name)


def _fit_on_a_rank(cls: type[Student]) -> dict[str, torch.Tensor]:
    student = seeded(cls)
    module = DistillationModule(student, teacher(), losses=HINTS, metrics=[Agreement()])
    trainer(strategy="ddp", devices=2, use_distributed_sampler=True).fit(module, loader(), loader())
    return state(student)


def test_compiled_networks_are_taught_and_teach() -> None:
    student, master = seeded(), teacher()
    student.net.compile(backend="eager")
    master.compile(backend="eager")
    one = trainer()
    one.fit(DistillationModule(student, master, network="net"), loader(), loader())
    assert one.callback_metrics["distillation/decoupled"] > 0


def test_layers_of_what_torch_compile_gave_have_their_plain_names() -> None:
    students = []
    for compiled in (False, True):
        student, master = seeded(), teacher()
        student.net.drop = nn.Identity()
        if compiled:
            master = torch.compile(master, backend="eager")
        trainer().fit(DistillationModule(student, master, losses=HINTS), loader(), loader())
        students.append(list(student.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*students, strict=True))
