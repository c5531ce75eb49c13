"""Distillation refuses wrong arguments at construction, and wrong pairs of networks at the first step."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn

from lightning_compress.distillation import EMA, DistillationCallback, DistillationModule, Ensemble, Term, losses
from lightning_compress.distillation.teachers import Live
from lightning_compress.metrics import Agreement
from tests.support.students import MeteredStudent, Student, loader, seeded, teacher, trainer


class Broken(nn.Module):
    def __init__(self, classes: int, value: float) -> None:
        super().__init__()
        self.classes, self.value = classes, value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.full((len(x), self.classes), self.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"losses": [Term(losses.mse, student_layers="net.nor", teacher_layers="norm")]},
            r"student that matches 'net.nor', got none.*net.norm",
        ),
        (
            {"losses": [Term(losses.mse, student_layers="net.norm", teacher_layers="nor")]},
            r"teacher that matches 'nor', got none.*conv, norm",
        ),
        (
            {"losses": [Term(losses.mse, student_layers="net.*", teacher_layers="norm")]},
            "as many layers of the student as of the teacher",
        ),
        (
            {"losses": [Term(losses.mse, student_layers="net.norm", teacher_layers="norm")]},
            r"mse/net.norm.*\(8, 4, 8, 8\).*a regressor in the term",
        ),
        ({"network": "body"}, r"need network to name a submodule of the student, got 'body'; there are: net, "),
        ({"teacher": Broken(4, 0.0)}, r"one shape, got student \(8, 3\), teacher \(8, 4\)"),
        (
            {"teacher": Broken(3, torch.nan)},
            "teacher that answers with finite numbers, got nan or inf in its output",
        ),
    ],
)
@pytest.mark.parametrize("front", ["module", "callback"])
def test_wrong_pairs_are_refused_at_the_first_step(front: str, arguments: dict[str, Any], message: str) -> None:
    arguments = {"teacher": teacher(), **arguments}
    student = seeded()
    module, one = student, trainer()
    if front == "module":
        module = DistillationModule(student, **arguments)
    else:
        one = trainer(DistillationCallback(**arguments))
    with pytest.raises(ValueError, match=message):
        one.fit(module, loader(), loader())
    assert type(student) is Student


def test_a_network_that_is_never_called_is_refused() -> None:
    with pytest.raises(ValueError, match="got no call of the student's own forward: give network="):
        trainer().fit(DistillationModule(MeteredStudent(), teacher()), loader(), loader())


def test_a_student_is_not_its_own_teacher() -> None:
    student = seeded()
    ways_out = r"write EMA\(\) for self-distillation, or give copy.deepcopy\(student\)$"
    own = rf"need a teacher without parameters of the student, got the student itself: {ways_out}"
    with pytest.raises(ValueError, match=own):
        DistillationModule(student, student)
    with pytest.raises(ValueError, match=own):
        trainer(DistillationCallback(student)).fit(student, loader(), loader())
    assert type(student) is Student
    parts = r"got one that shares .*weight.*: write EMA"
    tied, memory = teacher(), teacher()
    tied.head = student.net.head
    memory.head.weight.data = student.net.head.weight.data
    for one in (student.net, Ensemble([teacher(), student.net]), torch.compile(student.net), tied, memory, Live(tied)):
        with pytest.raises(ValueError, match=parts):
            DistillationModule(student, one)
    DistillationModule(student, copy.deepcopy(student))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alpha": 1.5}, ValueError, "need 0 <= alpha <= 1, got alpha=1.5: Term(weight=...) takes any factor"),
        ({"alpha": "0.5"}, TypeError, "need alpha as a number, got '0.5'"),
        ({"task_weight": -1.0}, ValueError, "need task_weight >= 0, got task_weight=-1.0"),
        ({"task_weight": True}, TypeError, "need task_weight as a number, got True"),
        ({"network": nn.Identity()}, TypeError, "need network as the name of a submodule, got Identity()"),
        ({"losses": []}, ValueError, "need at least one loss, got losses=()"),
        ({"losses": "mse"}, TypeError, "need losses as a list of losses or terms, got 'mse': write ['mse']"),
        (
            {"losses": ["mse"]},
            TypeError,
            "need loss as a function or an object, got 'mse': import it and pass it itself",
        ),
        ({"losses": losses.mse}, TypeError, "write [mse]"),
        ({"losses": Term(losses.mse)}, TypeError, "got Term(loss=mse): write [Term(loss=mse)]"),
        ({"losses": losses.SoftTargets()}, TypeError, "write [SoftTargets(temperature=4.0)]"),
        ({"losses": [losses.SoftTargets]}, TypeError, "got the class SoftTargets: write SoftTargets(...)"),
        ({"teacher": "teacher.ckpt"}, TypeError, "got 'teacher.ckpt': from_checkpoint(cls, path) loads a module"),
        ({"teacher": EMA}, TypeError, "need teacher as an object, got the class EMA: write EMA(...)"),
        ({"teacher": Student}, TypeError, "need teacher as an object, got the class Student: write Student(...)"),
        ({"teacher": Callback()}, TypeError, "need teacher as a module, or as EMA() or Cache(path), got <"),
        ({"metrics": Agreement()}, TypeError, "need metrics as a list, got Agreement(): write [Agreement()]"),
        ({"metrics": [Agreement]}, TypeError, "need metrics as objects, got the class Agreement: write Agreement()"),
        ({"metrics": [losses.mse]}, TypeError, "need metrics of torchmetrics, got <function mse"),
        ({"initialize": "net"}, TypeError, "need initialize as a mapping, got 'net'"),
    ],
)
@pytest.mark.parametrize("front", [lambda **k: DistillationModule(Student(), **k), DistillationCallback])
def test_bad_arguments_are_refused(front: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        front(**{"teacher": teacher(), **arguments})


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (Student, "need student as an object, got the class Student: write Student(...)"),
        (nn.Linear(1, 1), "need student as a LightningModule that has no teacher yet, got Linear"),
    ],
)
def test_a_student_is_a_lightning_module(student: Any, message: str) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        DistillationModule(student, teacher())


@pytest.mark.parametrize("front", [lambda *a: DistillationModule(Student(), *a), DistillationCallback])
def test_all_but_the_teacher_is_named(front: Any) -> None:
    with pytest.raises(TypeError, match="positional argument"):
        front(teacher(), [losses.mse])


def test_one_module_has_one_teacher() -> None:
    module = DistillationModule(seeded(), teacher())
    with pytest.raises(
        TypeError, match="need student as a LightningModule that has no teacher yet, got DistillationModule"
    ):
        DistillationModule(module, teacher())
    with pytest.raises(ValueError, match="need one teacher for a module, got two"):
        trainer(DistillationCallback(teacher())).fit(module, loader(), loader())
    trainer(max_steps=1).fit(module, loader(), loader())
    with pytest.raises(ValueError, match=r"need one teacher for a module, got two: .*, and Ensemble\(\[...\]\) for "):
        trainer(DistillationCallback(teacher()), DistillationCallback(teacher())).fit(seeded(), loader(), loader())


def test_a_student_that_is_compiled_as_a_whole_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got one that was set on the instance, as torch\.compile\(module\) does"):
        trainer(DistillationCallback(teacher())).fit(torch.compile(Student(), backend="eager"), loader(), loader())


def test_a_student_with_a_student_is_refused() -> None:
    outer = Student()
    outer.student = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="without an attribute named 'student'"):
        DistillationModule(outer, teacher())


class Regression(LightningModule):
    """Two numbers for each sample."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        return self(batch[0]).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


X, LABELS = torch.arange(24.0).view(8, 3), torch.tensor([0, 1] * 4)


@pytest.mark.parametrize(
    ("targets", "certain"),
    [
        ((LABELS,), True),
        ((LABELS[:, None],), True),
        ((torch.rand(8, 2),), False),
        ((torch.rand(8),), False),
        ((LABELS, torch.rand(8, 2)), False),
        ((LABELS * 7,), False),
        ((), False),
    ],
)
def test_decoupled_soft_targets_are_the_default_for_class_scores_alone(targets: Any, certain: bool) -> None:
    def fit(**options: Any) -> torch.Tensor:
        student = Regression()
        student.net.load_state_dict({"weight": torch.eye(2, 3), "bias": torch.zeros(2)})
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, *targets), 8)
        try:
            trainer(max_steps=1).fit(DistillationModule(student, Regression(), **options), loader)
        finally:
            weights.append(student.net.weight.detach())
        return weights[-1]

    weights: list[torch.Tensor] = []
    fit(losses=[losses.mse])
    if certain:
        fit()
        return
    with pytest.raises(ValueError, match=r"need losses= for outputs of shape \(8, 2\), .*losses=\[losses.mse\]"):
        fit()
    assert torch.equal(weights[-1], torch.eye(2, 3))  # no step was taken
