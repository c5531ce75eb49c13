"""DistillationModule and DistillationCallback: every kind of student; the teacher nowhere to be seen."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import EMAWeightAveraging, LearningRateFinder, ModelCheckpoint, ModelSummary
from lightning.pytorch.tuner import Tuner
from torch import nn

from lightning_compress.distillation import (
    EMA,
    DistillationCallback,
    DistillationModule,
    LeastSquares,
    Term,
    losses,
)
from lightning_compress.metrics import Agreement, Fidelity
from tests.support.distributed import run_distributed
from tests.support.students import (
    DictStudent,
    ManualStudent,
    MeteredStudent,
    Resumable,
    Student,
    data,
    loader,
    state,
    teacher,
    trainer,
)

STUDENTS = [(Student, ""), (DictStudent, ""), (MeteredStudent, "net"), (ManualStudent, "")]
HINTS = (
    Term(losses.SoftTargets(2.0)),
    Term(losses.mse, student="net.norm", teacher="norm", regressor=LeastSquares()),
)


def seeded(cls: type[Student] = Student, **kwargs: Any) -> Student:
    torch.manual_seed(0)
    return cls(**kwargs)


def same(a: nn.Module, b: nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("cls", "network"), STUDENTS)
def test_both_fronts_train_every_student_alike(cls: type[Student], network: str) -> None:
    student = seeded(cls)
    one = trainer(max_epochs=2)
    one.fit(DistillationModule(student, teacher(), network=network), loader(), loader())
    other = seeded(cls)
    callback = DistillationCallback(teacher(), network=network)
    two = trainer(max_epochs=2, callbacks=[callback])
    two.fit(other, loader(), loader())
    assert same(student, other)
    assert one.callback_metrics == two.callback_metrics
    assert {"val_loss", "distillation/task", "distillation/soft_targets"} < set(one.callback_metrics)
    assert type(other) is type(student) is cls


@pytest.mark.parametrize(("cls", "network"), STUDENTS)
def test_without_a_share_of_the_teacher_the_student_trains_as_alone(cls: type[Student], network: str) -> None:
    taught, alone = seeded(cls), seeded(cls)
    trainer().fit(DistillationModule(taught, teacher(), alpha=0.0, network=network), loader(), loader())
    torch.manual_seed(0)
    cls()  # the same draws as above
    trainer().fit(alone, loader(), loader())
    assert same(taught, alone)


def test_one_step_is_the_equation() -> None:
    student, master = seeded(), teacher()
    student.net.drop = nn.Identity()
    reference = copy.deepcopy(student)
    x, y = data().tensors
    answer = master.eval()(x[:8])
    logits = reference(x[:8])
    task = nn.functional.cross_entropy(logits, y[:8])
    (0.3 * task + 0.7 * 2.0 * losses.soft_targets(logits, answer, 3.0)).backward()
    gradients = Gradients()
    module = DistillationModule(student, master, [Term(losses.SoftTargets(3.0), weight=2.0)], alpha=0.7)
    trainer(callbacks=[gradients], max_steps=1).fit(module, loader(), loader())
    for name, parameter in reference.named_parameters():
        torch.testing.assert_close(gradients.first[name], parameter.grad)


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
        one = trainer(callbacks=[DistillationCallback(teacher())])
        one.fit(student, loader(), loader())
    one.save_checkpoint(path)


TEACHERS = {"live": (teacher, HINTS), "ema": (lambda: EMA(0.9), (Term(),))}


@pytest.mark.parametrize("kind", TEACHERS)
@pytest.mark.parametrize("front", ["module", "callback"])
@pytest.mark.parametrize("step", [3, 8])
def test_resumed_is_uninterrupted(kind: str, front: str, step: int, tmp_path: Path) -> None:
    make, terms = TEACHERS[kind]

    def run(path: Path | None) -> Student:
        student = seeded()
        student.net.drop = nn.Identity()
        callbacks: list[Callback] = [Kept(tmp_path, step)]
        module: LightningModule = student
        if front == "module":
            module = DistillationModule(student, make(), terms)
        else:
            callbacks.append(DistillationCallback(make(), terms))
        trainer(callbacks=callbacks, max_epochs=3).fit(module, Resumable(), loader(), ckpt_path=path)
        return student

    whole = run(None)
    assert same(run(tmp_path / "kept.ckpt"), whole)


class Kept(Callback):
    def __init__(self, path: Path, step: int) -> None:
        self.path, self.step = path / "kept.ckpt", step

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == self.step and not self.path.exists():
            trainer.save_checkpoint(self.path)


def test_teacher_is_nowhere_and_unchanged() -> None:
    master, student = teacher().train(), seeded()
    before = state(master)
    module = DistillationModule(student, master, HINTS)
    trainer(max_epochs=2, callbacks=[ModelSummary()]).fit(module, loader(), loader())
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
    module = DistillationModule(seeded(), master, HINTS, alpha=0.4)
    copied, loaded = copy.deepcopy(module), pickle.loads(pickle.dumps(module))
    assert copied.objective.teacher.module is master
    for one in (copied, loaded):
        assert isinstance(one, DistillationModule)
        assert same(one, module)
        assert one.net.head.weight is not module.net.head.weight
        assert one.objective.alpha == 0.4
        trainer(max_steps=1).fit(one, loader(), loader())


def test_fit_twice() -> None:
    student = seeded()
    module = DistillationModule(student, teacher(), HINTS)
    trainer().fit(module, loader(), loader())
    first = state(student)
    trainer().fit(module, loader(), loader())
    assert not torch.equal(first["net.head.weight"], student.net.head.weight)


def test_each_fit_has_an_average_of_its_own() -> None:
    """Nor do the steps of a tuner, which are taken back, count."""
    used, students = DistillationCallback(EMA(0.5)), [seeded(), seeded(), seeded()]
    tuned = trainer(callbacks=[used])
    Tuner(tuned).lr_find(students[0], loader(), loader(), num_training=3, update_attr=False)
    for student, callback in zip(students, [used, used, DistillationCallback(EMA(0.5))], strict=True):
        torch.manual_seed(0)
        trainer(callbacks=[callback]).fit(student, loader(), loader())
    assert same(students[0], students[2])
    assert same(students[1], students[2])


def test_a_tuner_in_the_trainer_leaves_no_trace_in_an_average(tmp_path: Path) -> None:
    students = [seeded(), seeded()]
    for student, tuners in zip(
        students, ([], [LearningRateFinder(num_training_steps=3, update_attr=False)]), strict=True
    ):
        student.net.drop = nn.Identity()
        callbacks = [*tuners, DistillationCallback(EMA(0.5))]
        trainer(callbacks=callbacks, default_root_dir=tmp_path).fit(student, loader(), loader())
    assert same(*students)


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "64-true"])
def test_precision(precision: Any) -> None:
    student = seeded()
    trainer(precision=precision).fit(DistillationModule(student, teacher(), HINTS), loader(), loader())
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
    one = trainer(callbacks=callbacks, enable_checkpointing=True)
    one.fit(DistillationModule(student, teacher(), HINTS), loader(), loader())
    assert same(Student.load_from_checkpoint(tmp_path / "last.ckpt"), student)
    one.fit_loop.max_epochs = 2
    one.fit(DistillationModule(seeded(), teacher(), HINTS), loader(), loader(), ckpt_path=tmp_path / "last.ckpt")


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
    module = DistillationModule(student, teacher(), HINTS, metrics=[Agreement()])
    trainer(strategy="ddp", devices=2).fit(module, loader(), loader())
    return state(student)


def test_compiled_networks_are_taught_and_teach() -> None:
    student, master = seeded(), teacher()
    student.net.compile(backend="eager")
    master.compile(backend="eager")
    one = trainer()
    one.fit(DistillationModule(student, master, network="net"), loader(), loader())
    assert one.callback_metrics["distillation/soft_targets"] > 0


def test_layers_of_what_torch_compile_gave_have_their_plain_names() -> None:
    students = []
    for compiled in (False, True):
        student, master = seeded(), teacher()
        student.net.drop = nn.Identity()
        if compiled:
            master = torch.compile(master, backend="eager")
        trainer().fit(DistillationModule(student, master, HINTS), loader(), loader())
        students.append(list(student.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*students, strict=True))


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

    module = DistillationModule(student, teacher(), [Term(schedule=schedule)])
    trainer().fit(module, loader(), loader())
    assert seen == [0.0, 0.25, 0.5, 0.75]


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
            {"losses": [Term(losses.mse, "net.nor", "norm")]},
            r"student that matches 'net.nor', got none.*net.norm",
        ),
        (
            {"losses": [Term(losses.mse, "net.norm", "nor")]},
            r"teacher that matches 'nor', got none.*conv, norm",
        ),
        ({"losses": [Term(losses.mse, "net.*", "norm")]}, "as many layers of the student as of the teacher"),
        (
            {"losses": [Term(losses.mse, "net.norm", "norm")]},
            r"mse/net.norm.*\(8, 4, 8, 8\).*a regressor in the term",
        ),
        ({"network": "body"}, r"need network to name a submodule of the student, got 'body'.*'net'"),
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
        one = trainer(callbacks=[DistillationCallback(**arguments)])
    with pytest.raises(ValueError, match=message):
        one.fit(module, loader(), loader())
    assert type(student) is Student


def test_a_network_that_is_never_called_is_refused() -> None:
    with pytest.raises(ValueError, match="got no call of the student's own forward: give network="):
        trainer().fit(DistillationModule(MeteredStudent(), teacher()), loader(), loader())


def test_a_student_is_not_its_own_teacher() -> None:
    student = seeded()
    with pytest.raises(ValueError, match="shares no parameter with the student"):
        trainer().fit(DistillationModule(student, student.net), loader(), loader())


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"alpha": 1.5}, ValueError, "need 0 <= alpha <= 1, got alpha=1.5"),
        ({"losses": []}, ValueError, "at least one term in losses"),
        ({"losses": [losses.mse]}, TypeError, r"need losses to be terms.*write Term\(mse\)"),
        ({"teacher": "resnet"}, TypeError, "need a module or a Teacher as teacher, got str"),
        ({"student": nn.Linear(1, 1)}, TypeError, "need a plain LightningModule as student, got Linear"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        DistillationModule(**{"student": Student(), "teacher": teacher(), **arguments})


def test_one_module_has_one_teacher() -> None:
    module = DistillationModule(seeded(), teacher())
    with pytest.raises(TypeError, match="need a plain LightningModule as student, got DistillationModule"):
        DistillationModule(module, teacher())
    with pytest.raises(ValueError, match="need one teacher for a module, got two"):
        trainer(callbacks=[DistillationCallback(teacher())]).fit(module, loader(), loader())
    trainer(max_steps=1).fit(module, loader(), loader())


def test_a_student_that_is_compiled_as_a_whole_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got one that was set on the instance, as torch\.compile\(module\) does"):
        trainer(callbacks=[DistillationCallback(teacher())]).fit(
            torch.compile(Student(), backend="eager"), loader(), loader()
        )


def test_a_student_with_a_student_is_refused() -> None:
    outer = Student()
    outer.student = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="without an attribute named 'student'"):
        DistillationModule(outer, teacher())
