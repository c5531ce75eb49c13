"""Averages: the running mean of a student's weights, one for each student."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from lightning_compress.distillation import EMA, DistillationModule, Term, losses
from tests.support.students import Student, loader, trainer


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
    terms = [Term(losses.mse, student_layers="net.norm", teacher_layers="net.norm")]
    module = DistillationModule(student, average, losses=terms, network="net")
    trainer().fit(module, loader(), loader())
    ours, theirs = dict(student.named_parameters()), dict(average.module.named_parameters())
    assert ours.keys() == theirs.keys()
    assert all(not torch.equal(ours[name], theirs[name]) for name in ours)
    assert not any(parameter.requires_grad for parameter in theirs.values())


def test_decay_is_checked() -> None:
    with pytest.raises(ValueError, match="need 0 <= decay < 1, got decay=1"):
        EMA(decay=1)
    with pytest.raises(TypeError, match="need decay as a number, got '0.9'"):
        EMA(decay="0.9")


def test_a_copy_begins_an_average_of_its_own() -> None:
    average = EMA(decay=0.9)
    average.begin(nn.Linear(2, 1), "", lambda module: module)
    for one in (copy.deepcopy(average), pickle.loads(pickle.dumps(average))):
        assert repr(one) == "EMA(decay=0.9)"
        assert average.state_dict()
        assert one.state_dict() == {}
