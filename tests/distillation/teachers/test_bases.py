"""A student with adapters is taught by the model that it adapts, as that was before training."""

import copy
import pickle

import lightning as L
import pytest
import torch

from lightning_compress import DistillationCallback, PruningCallback, QATCallback
from lightning_compress.distillation import Base, losses
from lightning_compress.schedules import Constant
from tests.support.toys import Adapted, Digits, build, digits, fit

IMAGES = digits()[0][:16]


class Answers(L.Callback):
    """The outputs of a teacher after some steps."""

    def __init__(self, teacher):
        self.teacher, self.seen = teacher, []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.teacher._place(None)
        with torch.no_grad():
            self.seen.append(self.teacher._network(IMAGES))


class Still(Adapted):
    """Batch normalization does not train: all that changes are the adapters."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        for layer in (self.net[1], self.net[4]):
            layer.requires_grad_(False)
            layer.momentum = 0.0


@pytest.mark.parametrize(
    "methods", [[], [PruningCallback(0.5, schedule=Constant()), QATCallback(4, activation_bits=None)]]
)
def test_the_teacher_is_the_model_before_training(methods):
    module, teacher = build(kind=Still), Base()
    with torch.no_grad():
        expected = copy.deepcopy(module).eval()(IMAGES)
    answers = Answers(teacher)
    fit(module, DistillationCallback(teacher, losses=[losses.mse]), *methods, answers)
    assert len(answers.seen) == 36
    assert all(torch.equal(answer, expected) for answer in answers.seen)
    with torch.no_grad():
        assert not torch.allclose(module.eval()(IMAGES), expected)


def test_it_takes_no_memory_and_leaves_the_student_alone():
    module, teacher = build(kind=Adapted), Base()
    teacher.begin(module, "net", lambda module: module)
    own = {id(parameter) for parameter in module.parameters()}
    assert all(id(parameter) in own for parameter in teacher.module.parameters())
    assert module.training
    assert not teacher.module.training
    assert teacher.state_dict() == {}


def test_a_student_without_adapters_is_refused():
    with pytest.raises(ValueError, match="need a student with adapters to teach it by its base, got one without"):
        fit(build(kind=Digits), DistillationCallback(Base(), losses=[losses.mse]))


def test_copies_view_another_student():
    teacher = Base()
    teacher.begin(build(kind=Adapted), "net", lambda module: module)
    for other in (copy.deepcopy(teacher), pickle.loads(pickle.dumps(teacher))):
        assert repr(other) == "Base()"
        assert other._student is None
