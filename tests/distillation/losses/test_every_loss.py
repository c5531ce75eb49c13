"""Promises of every loss: zero at the teacher, descent, finite gradients, float32, refusals."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from lightning_compress.distillation import losses
from lightning_compress.distillation.terms import log_name
from tests.distillation.losses.samples import LABELS, S, T

EVERY = [
    losses.SoftTargets(),
    losses.Correlation(),
    losses.mse,
    losses.cosine,
    losses.relational_distance,
    losses.relational_angle,
    losses.similarity_preserving,
    partial(losses.Decoupled(), labels=LABELS),
]


@pytest.mark.parametrize("loss", EVERY, ids=log_name)
def test_equal_is_zero_and_descent_leads_there(loss: losses.Loss) -> None:
    assert loss(T, T).item() == pytest.approx(0, abs=1e-12)
    student = S.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(student, T), student)
    assert loss(S - 1e-3 * gradient, T) < loss(S, T)


@pytest.mark.parametrize("loss", EVERY, ids=log_name)
def test_gradient_is_finite_where_samples_coincide(loss: losses.Loss) -> None:
    student = torch.zeros(6, 5, requires_grad=True)
    loss(student, T.float()).backward()
    assert student.grad.isfinite().all()


def test_half_precision_is_computed_in_single() -> None:
    large = torch.full((2, 3), 500.0, dtype=torch.float16)
    assert losses.mse(large, torch.zeros_like(large)).item() == 250_000


@pytest.mark.parametrize("loss", [losses.SoftTargets(), losses.Correlation(), losses.mse, losses.cosine], ids=log_name)
def test_other_shapes_are_refused(loss: losses.Loss) -> None:
    with pytest.raises(ValueError, match=r"one shape, got student \(6, 5\), teacher \(6, 4\)"):
        loss(S, T[:, :4])
