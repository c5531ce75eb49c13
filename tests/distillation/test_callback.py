"""DistillationCallback as an object: its repr, its copies and pickles."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import pytest

from lightning_compress.distillation import EMA, DistillationCallback, LeastSquares, Term, losses
from lightning_compress.metrics import Agreement
from tests.support.runs import same
from tests.support.students import HINTS, loader, seeded, teacher, trainer


def test_repr_is_the_call() -> None:
    term = Term(losses.mse, student_layers="net.norm", teacher_layers="norm", regressor=LeastSquares())
    callback = DistillationCallback(teacher(), losses=[losses.cosine, term], task_weight=1.0, metrics=[Agreement()])
    assert repr(callback) == (
        "DistillationCallback(teacher=Net(...), losses=(Term(loss=cosine), Term(loss=mse, student_layers='net.norm', "
        "teacher_layers='norm', regressor=LeastSquares(decay=0.9, penalty=0.001, dim=1))), task_weight=1.0, "
        "metrics=(Agreement(),))"
    )
    decoupled = "(Term(loss=Decoupled(alpha=1.0, beta=2.0, temperature=2.0)),)"
    assert repr(DistillationCallback(EMA(0.99), network="net")) == (
        f"DistillationCallback(teacher=EMA(decay=0.99), losses={decoupled}, network='net')"
    )


@pytest.mark.parametrize("make", [copy.deepcopy, lambda callback: pickle.loads(pickle.dumps(callback))])
@pytest.mark.parametrize("has_run", [False, True])
@pytest.mark.parametrize("kind", ["live", "ema"])
def test_a_copy_trains_as_a_new_callback(kind: str, has_run: bool, make: Callable) -> None:
    def new() -> DistillationCallback:
        if kind == "ema":
            return DistillationCallback(EMA(0.5), alpha=0.4)
        return DistillationCallback(teacher(), losses=HINTS, alpha=0.4, metrics=[Agreement()])

    callback = new()
    if has_run:
        trainer(callback).fit(seeded(), loader(), loader())
    students = []
    for one in (make(callback), new()):
        assert repr(one) == repr(callback)
        student = seeded()
        trainer(one).fit(student, loader(), loader())
        students.append(student)
    assert same(*students)
