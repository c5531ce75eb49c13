import pytest
import torch
from sklearn.cluster import KMeans

from lightning_compress.search.budget.choice.codebooks import codebook


def drawn(kind):
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    if kind == "long tails":
        return values * values.flip(0).abs()
    if kind == "of one sign":
        return values.abs()
    if kind == "pruned":
        return values[values.abs() > 0.7]
    if kind == "pruned, more on one side":
        return values[(values + 0.4).abs() > 0.7] + 0.4
    return values


def distance(values, centers):
    return float((values[:, None] - centers).abs().amin(1).square().mean())


@pytest.mark.parametrize("number", [1, 2, 3, 5, 8, 15, 31])
@pytest.mark.parametrize("kind", ["normal", "long tails", "of one sign", "pruned", "pruned, more on one side"])
def test_the_centers_are_nearly_as_close_as_those_of_kmeans(kind, number):
    values = drawn(kind)
    centers = codebook(values, number, pruned=kind.startswith("pruned"))
    reference = KMeans(number, n_init=1, random_state=0).fit(values[:, None].double().numpy())
    assert torch.equal(centers, centers.sort().values)
    assert len(centers) == number
    assert distance(values, centers) <= 1.08 * reference.inertia_ / len(values)


def test_no_center_stands_for_both_signs_of_pruned_weights():
    values = torch.cat([torch.full((50,), -1.0), torch.linspace(1.0, 3.0, 950)])
    centers = codebook(values, 4, pruned=True)
    assert centers[0] == -1.0
    assert (centers[1:] >= 1.0).all()


@pytest.mark.parametrize("number", [3, 40])
def test_few_values_and_equal_values_are_their_own_centers(number):
    assert codebook(torch.tensor([2.0, -1.0, 2.0]), number, pruned=True).tolist() == [-1.0, 2.0]
    assert codebook(torch.full((500,), 0.5), number, pruned=False).tolist() == [0.5]
    assert codebook(torch.empty(0), number, pruned=True).tolist() == []
