"""A student starts from layers of its teacher, and from nothing else."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from lightning_compress.distillation import EMA, DistillationCallback, DistillationModule, initialize
from tests.support.runs import trainer
from tests.support.toys import Batches, Digits, build, held_out


def deep() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4)), nn.Linear(4, 2))


def shallow() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), nn.Linear(4, 2))


def other() -> Digits:
    torch.manual_seed(7)
    module = Digits()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.rand_like(parameter))
    return module


def test_entries_are_found_by_name_and_the_others_stay() -> None:
    teacher, student = deep(), shallow()
    teacher[0][1].running_mean.fill_(3.0)
    head = copy.deepcopy(student[1].state_dict())
    initialize(student, teacher, {"0": "0"})
    for name, tensor in student[0].state_dict().items():
        torch.testing.assert_close(tensor, teacher[0].state_dict()[name], rtol=0, atol=0)
    for name, tensor in student[1].state_dict().items():
        torch.testing.assert_close(tensor, head[name], rtol=0, atol=0)


def test_the_teacher_is_copied_not_shared() -> None:
    teacher, student = deep(), deep()
    initialize(student, teacher, {"": ""})
    with torch.no_grad():
        student[1].weight.zero_()
    assert teacher[1].weight.abs().sum() > 0
    assert student[1].weight.requires_grad


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"9": "0"}, r"got '9', which the student does not have; it has: 0, 0\.0, "),
        ({"0": "stage"}, r"got 'stage', which the teacher does not have"),
        ({"0.0": "0.2"}, r"need 'weight' of shape \(4, 3\) in the teacher's layer '0.2' .* got \(4, 4\)"),
        ({"0": "0.0"}, r"need '0.weight' of shape \(4, 3\) in the teacher's layer '0.0' .* got none"),
    ],
)
def test_layers_that_do_not_fit_are_refused_and_nothing_is_written(layers: dict[str, str], message: str) -> None:
    student = shallow()
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(ValueError, match=message):
        initialize(student, deep(), {"1": "1", **layers})
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())


class First(Callback):
    """The weights that the first step of a fit meets."""

    def on_train_batch_start(self, trainer: object, pl_module: Digits, batch: object, batch_idx: int) -> None:
        self.__dict__.setdefault("weights", {n: p.detach().clone() for n, p in pl_module.named_parameters()})


@pytest.mark.parametrize("front", ["module", "callback"])
def test_both_fronts_start_from_the_teacher_and_resume_from_the_checkpoint(front: str, tmp_path: Path) -> None:
    def fit(epochs: int, **options: str) -> tuple[Digits, First]:
        student, first = build(), First()
        layers = {"net": "net"}
        callbacks: list[Callback] = [first]
        module = student
        if front == "module":
            module = DistillationModule(student, other(), alpha=0.3, initialize=layers)
        else:
            callbacks.append(DistillationCallback(other(), alpha=0.3, initialize=layers))
        run = trainer(*callbacks, max_epochs=epochs)
        run.fit(module, Batches(), held_out(), **options)
        run.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return student, first

    student, first = fit(1)
    assert all(torch.equal(first.weights[name], p) for name, p in other().named_parameters())
    _, resumed = fit(2, ckpt_path=str(tmp_path / "1.ckpt"))
    assert all(torch.equal(resumed.weights[name], p) for name, p in student.named_parameters())


def test_a_copy_is_not_initialized_again() -> None:
    module = DistillationModule(build(), other(), initialize={"net": "net"})
    with torch.no_grad():
        module.student.net[0].weight.fill_(0.5)
    assert torch.equal(copy.deepcopy(module).student.net[0].weight, module.student.net[0].weight)


@pytest.mark.parametrize("front", [lambda **k: DistillationModule(build(), **k), DistillationCallback])
def test_a_teacher_without_weights_of_its_own_is_refused(front: type[DistillationCallback]) -> None:
    with pytest.raises(ValueError, match=r"need a module as teacher to initialize from, got EMA"):
        front(teacher=EMA(), initialize={"": ""})
