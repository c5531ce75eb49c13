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


def of_one(values, codes, clusters):
    """Sums and counts of a single codebook."""
    sums, counts = cluster_sums([value[None] for value in values], [code[None] for code in codes], clusters)
    return sums[0], counts[0]


def test_against_exact_fractions():
    values, codes = sample()
    sums, counts = of_one([values], [codes], 8)
    for k in range(8):
        mine = [Fraction(value) for value, code in zip(values.tolist(), codes.tolist(), strict=True) if code == k]
        assert counts[k] == len(mine)
        assert float(sum(mine)) == pytest.approx(float(sums[k]), abs=1e-10)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_no_bit_depends_on_the_order_or_on_the_split_into_tensors(dtype):
    values, codes = sample()
    codes = codes.to(dtype)
    expected = of_one([values], [codes], 7)
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(1))
    shuffled = of_one([values[order].view(50, 100)], [codes[order].view(50, 100)], 7)
    split = of_one(list(values.split([1000, 0, 4000])), list(codes.split([1000, 0, 4000])), 7)
    for sums, counts in (shuffled, split):
        assert torch.equal(sums, expected[0])
        assert torch.equal(counts, expected[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_the_values_stay_as_they_are(dtype):
    values, codes = sample()
    values = values.to(dtype)
    before = values.clone()
    of_one([values], [codes], 7)
    assert torch.equal(values, before)


def test_codebooks_side_by_side_have_the_sums_of_each():
    (values, codes), scales = sample(600), torch.tensor([1.0, 1e6, 1e-6])[:, None]
    values, codes = values.view(3, 200) * scales, codes.view(3, 200)
    sums, counts = cluster_sums([values], [codes.to(torch.uint8)], 7)
    for row in range(3):
        expected = of_one([values[row]], [codes[row]], 7)
        assert torch.equal(sums[row], expected[0])
        assert torch.equal(counts[row], expected[1])


def test_codes_of_a_time_of_more_clusters_count_in_their_own_codebook():
    values, codes = torch.tensor([[1.0, 2.0, 4.0], [8.0, 16.0, 32.0]]), torch.tensor([[0, 1, 3], [0, 0, 1]])
    sums, counts = cluster_sums([values], [codes], 2)
    assert sums.tolist() == [[1.0, 2.0, 0.0, 4.0], [24.0, 32.0, 0.0, 0.0]]
    assert counts.tolist() == [[1.0, 1.0, 0.0, 1.0], [2.0, 1.0, 0.0, 0.0]]


@pytest.mark.parametrize("value", [1e-45, 1e-30, 3e38, 0.0])
def test_any_magnitude(value):
    sums, _ = of_one([torch.full((1000,), value)], [torch.zeros(1000, dtype=torch.uint8)], 1)
    assert float(sums) == pytest.approx(1000 * float(torch.tensor(value)), rel=1e-9)


def test_sums_of_values_that_are_not_finite():
    sums, _ = of_one([torch.tensor([1.0, float("inf"), float("nan")])], [torch.tensor([0, 1, 2])], 3)
    assert sums.isfinite().tolist() == [True, False, False]


def test_the_sum_is_the_derivative_by_the_shared_value():
    values, codes = sample(200)
    shared = torch.randn(7, generator=torch.Generator().manual_seed(2)).requires_grad_()
    weights = shared[codes]
    weights.retain_grad()
    (weights * values).sin().sum().backward()
    sums, counts = of_one([weights.grad], [codes], 7)
    torch.testing.assert_close(summed(sums, counts).float(), shared.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mean(sums, counts) * counts, sums)


def test_an_empty_cluster_has_no_gradient():
    assert mean(torch.zeros(1), torch.zeros(1)).tolist() == [0.0]
