"""Checkpoints as teachers."""

from __future__ import annotations

import torch

from lightning_compress.distillation import DistillationModule, from_checkpoint
from tests.support.students import Student, loader, trainer


def test_from_checkpoint(tmp_path: object) -> None:
    student = Student(width=6)
    one = trainer(max_steps=1)
    one.fit(student, loader(), loader())
    one.save_checkpoint(f"{tmp_path}/teacher.ckpt")
    master = from_checkpoint(Student, f"{tmp_path}/teacher.ckpt")
    assert torch.equal(master.net.head.weight, student.net.head.weight)
    trainer(max_steps=1).fit(DistillationModule(Student(), master), loader(), loader())
