"""K-means on a line, against scikit-learn, an exhaustive search and plain numpy."""

from itertools import combinations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from lightning_compress.sharing.initial_centers import density, linear, plus_plus
from lightning_compress.sharing.kmeans import assign, fit, fit_rows

INITS = [linear, density, plus_plus]


def inertia(values, codebook):
    return float((values.double().flatten()[:, None] - codebook.double()).square().min(1).values.sum())


def sample(kind, count=2000):
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(count, generator=generator)
    return {
        "normal": normal,
        "laplace": normal.sign() * torch.rand(count, generator=generator).log().neg(),
        "pruned": normal[normal.abs() > 1.2],
        "tailed": normal**5,
    }[kind]


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("kind", ["normal", "laplace", "pruned", "tailed"])
def test_no_worse_than_scikit_learn_from_the_same_start(init, kind):
    values = sample(kind)
    start = init(values.sort().values, 8).double().numpy()[:, None]
    reference = KMeans(8, init=start, n_init=1, tol=0, max_iter=1000).fit(values.double().numpy()[:, None])
    codebook = fit(values, 8, init)
    assert len(codebook) == 8
    assert inertia(values, codebook) <= reference.inertia_ * (1 + 1e-3)  # local optima, both


@pytest.mark.parametrize("init", INITS)
def test_finds_the_same_centers_as_scikit_learn(init):
    values = sample("laplace")
    start = init(values.sort().values, 5).double().numpy()[:, None]
    reference = KMeans(5, init=start, n_init=1, tol=0, max_iter=1000).fit(values.double().numpy()[:, None])
    np.testing.assert_allclose(fit(values, 5, init), np.sort(reference.cluster_centers_[:, 0]), rtol=1e-5)


def test_reaches_the_optimum_that_an_exhaustive_search_finds():
    values = sample("normal", 24).sort().values

    def cost(splits):
        parts = np.split(values.double().numpy(), splits)
        return sum(((part - part.mean()) ** 2).sum() for part in parts)

    best = min(cost(splits) for splits in combinations(range(1, 24), 3))
    assert min(inertia(values, fit(values, 4, init)) for init in INITS) == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("count", [2000, 65_540])  # with few values, all sums are kept
def test_every_value_sits_at_its_nearest_center_and_every_center_in_the_middle(count):
    values = sample("normal", count).view(20, -1)
    codebook = fit(values, 16)
    codes = assign(values, codebook)
    nearest = (values[..., None] - codebook).abs().argmin(-1)
    assert torch.equal(codes.long(), nearest)
    means = torch.stack([values[codes == k].double().mean() for k in range(16)])
    torch.testing.assert_close(codebook.double(), means, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("init", INITS)
def test_clusters_that_start_empty_are_filled(init):
    values = torch.cat([torch.linspace(0, 1, 500), torch.tensor([1e6])])
    codebook = fit(values, 8, init)
    assert len(codebook) == 8
    assert len(assign(values, codebook).unique()) == 8
    assert inertia(values, codebook) < 1


@pytest.mark.parametrize("init", INITS)
def test_no_more_distinct_values_than_clusters_are_kept_as_they_are(init):
    values = torch.tensor([3.0, -1.0, 3.0, 0.5])
    assert fit(values, 3, init).tolist() == [-1.0, 0.5, 3.0]
    assert fit(values, 9, init).tolist() == [-1.0, 0.5, 3.0]
    assert fit(torch.empty(0), 3, init).tolist() == []


def test_adjacent_numbers_are_told_apart():
    values = 1 + torch.tensor([0.0, 1.0, 2.0, 3.0]) * torch.finfo(torch.float32).eps
    assert len(fit(values, 3)) == 3


@pytest.mark.parametrize("init", INITS)
def test_the_order_of_the_values_does_not_matter(init):
    values = sample("normal", 100_000)
    shuffled = values[torch.randperm(100_000, generator=torch.Generator().manual_seed(1))]
    assert torch.equal(fit(values, 16, init), fit(shuffled.view(100, -1).T, 16, init))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_keeps_the_dtype(dtype):
    values = sample("normal").to(dtype)
    codebook = fit(values, 8)
    assert codebook.dtype == dtype
    assert assign(values, codebook).max() == 7
    torch.testing.assert_close(codebook.float(), fit(values.float(), 8), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_refuses_what_is_no_number(bad):
    with pytest.raises(ValueError, match="need finite values"):
        fit(torch.tensor([1.0, bad, 2.0]), 2)


def test_refuses_no_clusters():
    with pytest.raises(ValueError, match="need clusters >= 1, got clusters=0"):
        fit(torch.ones(3), 0)


@pytest.mark.parametrize("clusters", [1, 2, 3, 16, 255])
@pytest.mark.parametrize("kind", ["normal", "tailed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_many_values_are_assigned_as_few_are(kind, clusters, dtype):
    values = sample(kind, 20_000).to(dtype)
    codebook = fit(values, clusters)
    wide = torch.promote_types(dtype, torch.float32)
    between = codebook[:-1].to(wide).lerp(codebook[1:].to(wide), 0.5)
    values = torch.cat([values, codebook, between.to(dtype), torch.tensor([-1e30, 1e30]).to(dtype)])
    expected = np.searchsorted(between.numpy(), values.to(wide).numpy(), side="left")
    np.testing.assert_array_equal(assign(values, codebook).numpy(), expected)


def test_assigning_survives_what_is_no_number():
    values = torch.full((10_000,), float("nan"))
    assert len(assign(values, torch.tensor([0.0, 1.0, 2.0]))) == 10_000


def rows_of_many_kinds():
    """Sorted and unsorted, with ties, with few distinct values, with zeros, and of zeros alone."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(40, 60, generator=generator)
    rows[1::4] = (rows[1::4] * 4).round() / 4
    rows[2::4] = rows[2::4].sign()
    rows[3::4] *= torch.rand(rows[3::4].shape, generator=generator) < 0.3
    rows[7], rows[11, 1:] = 0.0, 0.0
    return rows


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("clusters", [1, 2, 9, 40])
def test_rows_have_the_centers_that_each_has_by_itself(clusters, init):
    rows = rows_of_many_kinds()
    numbers = torch.full((len(rows),), clusters) + torch.arange(len(rows)) % 2
    found = fit_rows(rows, numbers, init)
    for row, number, centers in zip(rows, numbers.tolist(), found, strict=True):
        assert torch.equal(centers[centers.isfinite()], fit(row[row != 0], number, init))
        assert not centers[centers.isfinite().sum() :].isfinite().any()


def test_rows_that_are_not_finite_are_refused():
    rows = rows_of_many_kinds()
    for value in (float("nan"), float("inf"), -float("inf")):
        rows[3, 5] = value
        with pytest.raises(ValueError, match="need finite values to cluster"):
            fit_rows(rows, torch.full((len(rows),), 4))


def test_rows_are_assigned_to_the_centers_of_their_own_codebooks():
    rows = rows_of_many_kinds()
    codebooks = fit_rows(rows, torch.arange(2, len(rows) + 2))
    rows[0, 0] = rows[4, 0] = 1e30
    codes = assign(rows, codebooks)
    for row, centers, mine in zip(rows, codebooks, codes, strict=True):
        if centers[0].isfinite():
            assert torch.equal(mine, assign(row, centers[centers.isfinite()]))
