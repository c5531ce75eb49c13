"""DistillationModule and DistillationCallback: every kind of student; the teacher nowhere to be seen."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import LearningRateFinder, ModelSummary
from lightning.pytorch.tuner import Tuner
from torch import nn

from lightning_compress.distillation import (
    EMA,
    DistillationCallback,
    DistillationModule,
    Term,
    losses,
)
from lightning_compress.metrics import Agreement, Fidelity
from tests.support.runs import resumes, same, state, uninterrupted
from tests.support.students import (
    HINTS,
    DictStudent,
    ManualStudent,
    MeteredStudent,
    Student,
    data,
    loader,
    resumable,
    seeded,
    teacher,
    trainer,
)

STUDENTS = [(Student, None), (DictStudent, None), (MeteredStudent, "net"), (ManualStudent, None)]


@pytest.mark.parametrize(("cls", "network"), STUDENTS)
def test_both_fronts_train_every_student_alike(cls: type[Student], network: str | None) -> None:
    student = seeded(cls)
    one = trainer(max_epochs=2)
    one.fit(DistillationModule(student, teacher(), network=network), loader(), loader())
    other = seeded(cls)
    callback = DistillationCallback(teacher(), network=network)
    two = trainer(callback, max_epochs=2)
    two.fit(other, loader(), loader())
    assert same(student, other)
    assert one.callback_metrics == two.callback_metrics
    assert {"val_loss", "distillation/task", "distillation/decoupled"} < set(one.callback_metrics)
    assert type(other) is type(student) is cls


@pytest.mark.parametrize(("cls", "network"), STUDENTS)
def test_with_alpha_zero_the_student_trains_as_alone(cls: type[Student], network: str | None) -> None:
    taught, alone = seeded(cls), seeded(cls)
    trainer().fit(DistillationModule(taught, teacher(), alpha=0.0, network=network), loader(), loader())
    torch.manual_seed(0)
    cls()  # the same draws as above
    trainer().fit(alone, loader(), loader())
    assert same(taught, alone)


@pytest.mark.parametrize(
    ("weights", "task_weight", "alpha"),
    [
        ({"alpha": 0.7}, 0.3, 0.7),
        ({"alpha": 0.7, "task_weight": 1.0}, 1.0, 0.7),
        ({"alpha": 0.7, "task_weight": 0.0}, 0.0, 0.7),
        ({}, 1.0, 0.3),
        ({"task_weight": 0.5}, 0.5, 0.3),
    ],
    ids=str,
)
def test_one_step_is_the_equation(weights: dict[str, float], task_weight: float, alpha: float) -> None:
    student, master = seeded(), teacher()
    student.net.drop = nn.Identity()
    reference = copy.deepcopy(student)
    x, y = data().tensors
    answer = master.eval()(x[:8])
    logits = reference(x[:8])
    task = nn.functional.cross_entropy(logits, y[:8])
    (task_weight * task + alpha * 2.0 * losses.SoftTargets(3.0)(logits, answer)).backward()
    gradients = Gradients()
    terms = [Term(losses.SoftTargets(3.0), weight=2.0)]
    module = DistillationModule(student, master, losses=terms, **weights)
    trainer(gradients, max_steps=1).fit(module, loader(), loader())
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(gradients.first[name], parameter.grad)


def test_a_plain_loss_is_a_term_of_the_outputs() -> None:
    students = []
    for loss in (losses.mse, Term(losses.mse)):
        student = seeded()
        trainer().fit(DistillationModule(student, teacher(), losses=[loss]), loader(), loader())
        students.append(student)
    assert same(*students)


def test_losses_and_metrics_of_one_name_are_logged_apart() -> None:
    one = trainer()
    soft_targets = [losses.SoftTargets(2.0), losses.SoftTargets(8.0)]
    metrics = [Agreement(), Agreement(dim=1)]
    one.fit(DistillationModule(seeded(), teacher(), losses=soft_targets, metrics=metrics), loader(), loader())
    logged = {name.removeprefix("distillation/") for name in one.callback_metrics if "distillation/" in name}
    assert logged == {"task", "soft_targets", "soft_targets_2", "agreement", "agreement_2"}


class Gradients(Callback):
    def on_before_optimizer_step(self, trainer: Any, pl_module: LightningModule, optimizer: Any) -> None:
        self.first = {name: one.grad.clone() for name, one in pl_module.named_parameters()}


@pytest.mark.parametrize("front", ["module", "callback"])
def test_checkpoint_is_the_students(front: str, tmp_path: Path) -> None:
    student = seeded(width=5, lr=0.01)
    alone = trainer()
    alone.fit(Student(width=5, lr=0.01), loader(), loader())
    alone.save_checkpoint(tmp_path / "alone.ckpt")
    fit(front, student, tmp_path / "taught.ckpt")
    sizes = [(tmp_path / name).stat().st_size for name in ("alone.ckpt", "taught.ckpt")]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)
    loaded = Student.load_from_checkpoint(tmp_path / "taught.ckpt", weights_only=True)
    assert same(loaded, student)
    assert loaded.hparams == {"width": 5, "lr": 0.01}


def fit(front: str, student: Student, path: Path) -> None:
    if front == "module":
        one = trainer()
        one.fit(DistillationModule(student, teacher()), loader(), loader())
    else:
        one = trainer(DistillationCallback(teacher()))
        one.fit(student, loader(), loader())
    one.save_checkpoint(path)


TEACHERS = {"live": (teacher, HINTS), "ema": (lambda: EMA(0.9), None)}


@resumes
@pytest.mark.parametrize("kind", TEACHERS)
@pytest.mark.parametrize("front", ["module", "callback"])
def test_resumed_is_uninterrupted(kind: str, front: str, tmp_path: Path) -> None:
    make, terms = TEACHERS[kind]

    def run(*callbacks: Callback, ckpt_path: Path | None = None) -> Student:
        student = seeded()
        student.net.drop = nn.Identity()
        module: LightningModule = student
        if front == "module":
            module = DistillationModule(student, make(), losses=terms)
        else:
            callbacks = (DistillationCallback(make(), losses=terms), *callbacks)
        trainer(*callbacks, max_epochs=3).fit(module, resumable(), loader(), ckpt_path=ckpt_path)
        return student

    uninterrupted(run, tmp_path, (3, 8))


def test_teacher_is_nowhere_and_unchanged() -> None:
    master, student = teacher().train(), seeded()
    before = state(master)
    module = DistillationModule(student, master, losses=HINTS)
    trainer(ModelSummary(), max_epochs=2).fit(module, loader(), loader())
    assert all(torch.equal(value, before[name]) for name, value in master.state_dict().items())
    assert not master.training
    assert all(parameter.grad is None for parameter in master.parameters())
    names = [name for name, _ in student.named_parameters()]
    assert [name for name, _ in module.named_parameters()] == names
    assert list(module.state_dict()) == list(student.state_dict())
    assert master not in list(module.modules())
    assert not student._forward_hooks
    assert not master._forward_hooks
    assert not student.net.norm._forward_hooks


def test_module_is_the_student() -> None:
    student = seeded(lr=0.2)
    module = DistillationModule(student, teacher())
    module.hparams.lr = 0.3
    module.note = "shared"
    assert isinstance(module, Student)
    assert isinstance(module, DistillationModule)
    assert module.student is student
    assert (student.hparams.lr, student.note) == (0.3, "shared")
    assert module(data().tensors[0]).shape == (32, 3)
    module.eval()
    assert not student.training


def test_copy_and_pickle_are_taught_and_share_no_weights() -> None:
    master = teacher()
    module = DistillationModule(seeded(), master, losses=HINTS, alpha=0.4)
    copied, loaded = copy.deepcopy(module), pickle.loads(pickle.dumps(module))
    assert copied.objective.teacher.module is master
    for one in (copied, loaded):
        assert isinstance(one, DistillationModule)
        assert same(one, module)
        assert one.net.head.weight is not module.net.head.weight
        assert one.objective.settings.alpha == 0.4
        trainer(max_steps=1).fit(one, loader(), loader())


def test_fit_twice() -> None:
    student = seeded()
    module = DistillationModule(student, teacher(), losses=HINTS)
    trainer().fit(module, loader(), loader())
    first = state(student)
    trainer().fit(module, loader(), loader())
    assert not torch.equal(first["net.head.weight"], student.net.head.weight)


def test_each_fit_has_an_average_of_its_own() -> None:
    """Nor do the steps of a tuner, which are taken back, count."""
    used, students = DistillationCallback(EMA(0.5)), [seeded(), seeded(), seeded()]
    tuned = trainer(used)
    Tuner(tuned).lr_find(students[0], loader(), loader(), num_training=3, update_attr=False)
    for student, callback in zip(students, [used, used, DistillationCallback(EMA(0.5))], strict=True):
        torch.manual_seed(0)
        trainer(callback).fit(student, loader(), loader())
    assert same(students[0], students[2])
    assert same(students[1], students[2])


def test_a_tuner_in_the_trainer_leaves_no_trace_in_an_average(tmp_path: Path) -> None:
    students = [seeded(), seeded()]
    for student, tuners in zip(
        students, ([], [LearningRateFinder(num_training_steps=3, update_attr=False)]), strict=True
    ):
        student.net.drop = nn.Identity()
        callbacks = [*tuners, DistillationCallback(EMA(0.5))]
        trainer(*callbacks, default_root_dir=tmp_path).fit(student, loader(), loader())
    assert same(*students)


def test_metrics_are_measured_in_validation() -> None:
    student, master = seeded(), teacher()
    module = DistillationModule(student, master, metrics=[Agreement(), Fidelity()])
    one = trainer()
    one.fit(module, loader(), loader())
    x = data().tensors[0]
    with torch.no_grad():
        ours, theirs = student.eval()(x), master(x)
    divergence = (theirs.softmax(-1) * (theirs.log_softmax(-1) - ours.log_softmax(-1))).sum(-1).mean()
    logged = one.callback_metrics
    assert logged["distillation/agreement"] == (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
    assert logged["distillation/fidelity"].item() == pytest.approx(divergence.item(), rel=1e-4)


def test_schedule_weighs_by_progress() -> None:
    student, seen = seeded(), []

    def schedule(progress: float) -> float:
        seen.append(progress)
        return progress

    module = DistillationModule(student, teacher(), losses=[Term(losses.mse, schedule=schedule)])
    seen.clear()  # of the check at construction
    trainer().fit(module, loader(), loader())
    assert seen == [0.0, 0.25, 0.5, 0.75]


class Stream(torch.utils.data.IterableDataset[Any]):
    """The samples one after the other, without a length."""

    def __iter__(self) -> Any:
        return iter(loader().dataset)


def test_a_schedule_needs_the_length_of_a_stream() -> None:
    stream = torch.utils.data.DataLoader(Stream(), 8)
    scheduled = DistillationModule(seeded(), teacher(), losses=[Term(losses.mse, schedule=lambda progress: progress)])
    with pytest.raises(ValueError, match="need a run of known length .* limit_train_batches"):
        trainer().fit(scheduled, stream, loader())
    trainer().fit(DistillationModule(seeded(), teacher(), losses=[losses.mse]), stream, loader())
