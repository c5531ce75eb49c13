from functools import partial

import numpy as np
import pytest
import torch

from lightning_compress.evidence import evidence_of
from lightning_compress.pruning import criteria
from lightning_compress.pruning.layer_inputs import mean_square

WEIGHT = torch.tensor([[0.5, -2.0, 0.1], [1.5, 0.3, -0.7]])
GRADIENT = torch.tensor([[1.0, 0.2, -3.0], [-0.1, 0.0, 2.0]])


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (criteria.magnitude, np.abs(WEIGHT.numpy())),
        (criteria.taylor, np.abs(WEIGHT.numpy() * GRADIENT.numpy())),
        (criteria.movement, -WEIGHT.numpy() * GRADIENT.numpy()),
    ],
)
def test_against_numpy(criterion, expected):
    np.testing.assert_allclose(criterion(WEIGHT, GRADIENT), expected, rtol=1e-6)


def test_taylor_is_the_change_of_a_linear_loss():
    """For a loss linear in the weights the first order is exact: setting one weight to zero changes it by the score."""
    loss = (WEIGHT * GRADIENT).sum()
    for index in np.ndindex(*WEIGHT.shape):
        masked = WEIGHT.clone()
        masked[index] = 0
        change = (loss - (masked * GRADIENT).sum()).abs()
        assert criteria.taylor(WEIGHT, GRADIENT)[index].item() == pytest.approx(change.item(), abs=1e-6)


def test_wanda_against_the_mean_square_of_what_a_linear_weight_contributes():
    inputs = torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    contribution = (inputs[:, None, :] * WEIGHT).square().mean(0).sqrt()  # (out, in)
    torch.testing.assert_close(criteria.wanda(WEIGHT, mean_square(inputs, 2).sqrt()), contribution)


def test_random_depends_on_shape_and_seed_alone():
    same = criteria.random(WEIGHT, torch.empty(0)), criteria.random(WEIGHT * 2, torch.empty(0))
    assert torch.equal(*same)
    assert not torch.equal(same[0], criteria.random(WEIGHT, torch.empty(0), seed=1))


def test_evidence():
    assert evidence_of(criteria.wanda) == "inputs"
    assert evidence_of(criteria.taylor) == "gradient"
    assert evidence_of(partial(criteria.random, seed=3)) == "nothing"
    assert evidence_of(lambda weight, gradient: weight) == "gradient"
