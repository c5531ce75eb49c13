"""Sums by cluster, against exact fractions; gradients, against autograd."""

from fractions import Fraction

import pytest
import torch

from lightning_compress.sharing.exact_sums import cluster_sums
from lightning_compress.sharing.gradients import mean, summed


def sample(count=5000, clusters=7):
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(count, generator=generator) * 10 ** (4 * torch.rand(count, generator=generator) - 4)
    return values, torch.randint(clusters, (count,), generator=generator)


def test_against_exact_fractions():
    values, codes = sample()
    sums, counts = cluster_sums([values], [codes], 8)
    for k in range(8):
        mine = [Fraction(value) for value, code in zip(values.tolist(), codes.tolist(), strict=True) if code == k]
        assert counts[k] == len(mine)
        assert float(sum(mine)) == pytest.approx(float(sums[k]), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_no_bit_depends_on_the_order_or_on_the_split_into_tensors(dtype):
    values, codes = sample()
    codes = codes.to(dtype)
    expected = cluster_sums([values], [codes], 7)
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(1))
    shuffled = cluster_sums([values[order].view(50, 100)], [codes[order].view(50, 100)], 7)
    split = cluster_sums(list(values.split([1000, 0, 4000])), list(codes.split([1000, 0, 4000])), 7)
    for sums, counts in (shuffled, split):
        assert torch.equal(sums, expected[0])
        assert torch.equal(counts, expected[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_values_stay_as_they_are(dtype):
    values, codes = sample()
    values = values.to(dtype)
    before = values.clone()
    cluster_sums([values], [codes], 7)
    assert torch.equal(values, before)


@pytest.mark.parametrize("value", [1e-45, 1e-30, 3e38, 0.0])
def test_any_magnitude(value):
    sums, _ = cluster_sums([torch.full((1000,), value)], [torch.zeros(1000, dtype=torch.uint8)], 1)
    assert float(sums) == pytest.approx(1000 * float(torch.tensor(value)), rel=1e-9)


def test_sums_of_values_that_are_not_finite():
    sums, _ = cluster_sums([torch.tensor([1.0, float("inf"), float("nan")])], [torch.tensor([0, 1, 2])], 3)
    assert sums.isfinite().tolist() == [True, False, False]


def test_the_sum_is_the_derivative_by_the_shared_value():
    values, codes = sample(200)
    shared = torch.randn(7, generator=torch.Generator().manual_seed(2)).requires_grad_()
    weights = shared[codes]
    weights.retain_grad()
    (weights * values).sin().sum().backward()
    sums, counts = cluster_sums([weights.grad], [codes], 7)
    torch.testing.assert_close(summed(sums, counts).float(), shared.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean(sums, counts) * counts, sums)


def test_an_empty_cluster_has_no_gradient():
    assert mean(torch.zeros(1), torch.zeros(1)).tolist() == [0.0]
