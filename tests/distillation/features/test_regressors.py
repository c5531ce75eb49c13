"""Regressors against numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lightning_compress.distillation import LeastSquares
from lightning_compress.distillation.features import Regressor

G = torch.Generator().manual_seed(0)


def test_regressor_is_ridge_regression() -> None:
    student, teacher = torch.randn(40, 3, generator=G), torch.randn(40, 5, generator=G)
    mapped, target = Regressor(LeastSquares(penalty=0.1))(student, teacher)
    rows = np.c_[student.numpy(), np.ones(40)].astype(np.float64)
    gram = rows.T @ rows / 40
    weight = np.linalg.solve(gram + 0.1 * gram.diagonal().mean() * np.eye(4), rows.T @ teacher.numpy() / 40)
    np.testing.assert_allclose(mapped.numpy(), rows @ weight, rtol=1e-4, atol=1e-5)
    assert target is teacher or torch.equal(target, teacher)


def test_regressor_remembers_past_batches() -> None:
    regressor = Regressor(LeastSquares(decay=0.75))
    batches = [torch.randn(8, 2, generator=G) for _ in range(2)]
    for batch in batches:
        regressor(batch, torch.zeros(8, 3))
        regressor.join()
    with_ones = [torch.cat((batch, torch.ones(8, 1)), 1) for batch in batches]
    first, second = (rows.T @ rows / 8 for rows in with_ones)
    torch.testing.assert_close(regressor.moments[:, :3], 0.75 * first + 0.25 * second)


@pytest.mark.parametrize(
    ("dim", "student", "teacher", "mapped"),
    [
        (1, (2, 3, 8, 8), (2, 6, 4, 4), (2, 6, 4, 4)),
        (1, (2, 3, 4), (2, 6, 8), (2, 6, 4)),
        (1, (2, 3), (2, 6), (2, 6)),
        (-1, (2, 7, 3), (2, 7, 6), (2, 7, 6)),
        (1, (2, 3, 4, 4), (2, 3, 4, 4), (2, 3, 4, 4)),
    ],
)
def test_regressor_shapes(dim: int, student: Any, teacher: Any, mapped: Any) -> None:
    x = torch.randn(student, generator=G).requires_grad_()
    ours, theirs = Regressor(LeastSquares(dim=dim))(x, torch.randn(teacher, generator=G))
    assert ours.shape == theirs.shape == mapped
    ours.sum().backward()
    assert x.grad.abs().sum() > 0


def test_regressor_refuses() -> None:
    with pytest.raises(ValueError, match="need 0 <= decay < 1"):
        LeastSquares(decay=1.0)
    with pytest.raises(ValueError, match="need penalty > 0"):
        LeastSquares(penalty=0.0)
    with pytest.raises(ValueError, match=r"one batch and of equally many dimensions.*\(2, 3\), teacher \(2, 3, 4\)"):
        Regressor(LeastSquares())(torch.ones(2, 3), torch.ones(2, 3, 4))
