"""Teachers: frozen, in the student's place of work, averaged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from lightning_compress.distillation import EMA, DistillationModule, Ensemble, Term, from_checkpoint, losses
from lightning_compress.distillation.features import Call
from lightning_compress.distillation.teachers import Live
from tests.support.students import Student, data, loader, teacher, trainer


def call(x: Tensor) -> Call:
    return Call((x,), {}, {"": x})


def begun(module: nn.Module) -> Live:
    live = Live(module)
    live.begin(nn.Module(), "", lambda module: module)
    return live


def test_live_answers_in_eval_without_gradients() -> None:
    master, x = teacher(), data().tensors[0]
    answer = begun(master).answer(call(x), ["", "norm"])
    assert not any(output.requires_grad or output.is_inference() for output in answer.values())
    torch.testing.assert_close(answer[""], master(x))
    assert answer["norm"].shape == (32, 6, 8, 8)
    assert not master._forward_hooks


def test_a_layer_that_does_not_run_is_refused() -> None:
    master = nn.Sequential(nn.Identity())
    master.spare = nn.Module()
    master.forward = lambda x: x
    with pytest.raises(ValueError, match=r"need teacher layers that run .* got none of \['0', 'spare'\]"):
        begun(master).answer(call(torch.ones(1)), ["0", "spare"])


def test_ensemble_is_the_mean_and_its_members_have_layers() -> None:
    members, x = [teacher(1), teacher(2)], data().tensors[0]
    answer = begun(Ensemble(members)).answer(call(x), ["", "members.1.head"])
    torch.testing.assert_close(answer[""], (members[0](x) + members[1](x)) / 2)
    torch.testing.assert_close(answer["members.1.head"], members[1](x))
    with pytest.raises(ValueError, match="at least one member"):
        Ensemble([])


def test_ema_follows_the_students_steps() -> None:
    student, average = nn.Linear(2, 1), EMA(decay=0.9)
    average.begin(student, "", lambda module: module)
    weights = [student.weight.detach().clone()]
    for _ in range(2):
        with torch.no_grad():
            student.weight.add_(1.0)
        weights.append(student.weight.detach().clone())
        average.follow(student, step=len(weights) - 1)
        average.follow(student, step=len(weights) - 1)  # the second batch of an accumulated step
    expected = 0.81 * weights[0] + 0.09 * weights[1] + 0.1 * weights[2]
    torch.testing.assert_close(average.module.weight.detach(), expected)


def test_ema_teaches_a_student_and_its_copy_is_its_own() -> None:
    torch.manual_seed(0)
    student = Student()
    average = EMA(decay=0.5)
    terms = [Term(losses.mse, "net.norm", "net.norm")]
    module = DistillationModule(student, average, terms, network="net")
    trainer().fit(module, loader(), loader())
    ours, theirs = dict(student.named_parameters()), dict(average.module.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(not torch.equal(ours[name], theirs[name]) for name in ours)
    assert not any(parameter.requires_grad for parameter in theirs.values())


def test_decay_is_checked() -> None:
    with pytest.raises(ValueError, match="need 0 <= decay < 1, got decay=1"):
        EMA(decay=1)


def test_from_checkpoint(tmp_path: object) -> None:
    student = Student(width=6)
    one = trainer(max_steps=1)
    one.fit(student, loader(), loader())
    one.save_checkpoint(f"{tmp_path}/teacher.ckpt")
    master = from_checkpoint(Student, f"{tmp_path}/teacher.ckpt")
    assert torch.equal(master.net.head.weight, student.net.head.weight)
    trainer(max_steps=1).fit(DistillationModule(Student(), master), loader(), loader())
