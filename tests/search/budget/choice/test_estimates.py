"""Costs and bytes of zeros and distinct values, against numpy, scipy and the archive."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from sklearn.cluster import KMeans

from lightning_compress.archive import archived_bytes
from lightning_compress.search.budget.choice.estimates import LARGEST, options_of, sample, sparsity_for, totals
from lightning_compress.sharing.kmeans import assign, fit


def weights(*shape, seed=0, scale=1.0):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def layer(*shape, seed=0, scale=1.0, sparsity=0.0):
    """A weight with zeros, and a Fisher information that differs from entry to entry."""
    weight, fisher = weights(*shape, seed=seed, scale=scale), weights(*shape, seed=seed + 100).square()
    return weight * (weight.abs() > weight.abs().quantile(sparsity) if sparsity else 1.0), fisher


def test_the_cost_is_that_of_the_second_order():
    weight, fisher = layer(40, 30, sparsity=0.5)
    kept = weight[weight != 0].numpy()
    centers = np.sort(KMeans(7, n_init=20, random_state=0).fit(kept[:, None]).cluster_centers_[:, 0])
    nearest = centers[np.abs(kept[:, None] - centers).argmin(1)]
    expected = 0.5 * (fisher[weight != 0].numpy() * (kept - nearest) ** 2).sum()
    (option, floats) = options_of(sample(weight, fisher), [8])
    assert option.cost == pytest.approx(expected, rel=0.1)  # k-means ends in neighboring optima
    assert floats.cost == 0


def test_the_bytes_are_those_of_the_entropy_and_a_codebook():
    weight, fisher = layer(40, 30, sparsity=0.5)
    (option, floats) = options_of(sample(weight, fisher), [8])
    values = fit(weight[weight != 0], 7)
    kept = np.bincount(assign(weight[weight != 0], values).numpy())
    counts = [int((weight == 0).sum()), *kept]
    expected = weight.numel() * entropy(counts, base=2) / 8 + 4 * 7
    assert option.size == pytest.approx(expected, rel=0.01)  # the centers are nearly those of k-means
    assert floats.size == pytest.approx(1200 * entropy([600, 600], base=2) / 8 + 4 * 600)


@pytest.mark.parametrize("number", [3, 8, 32])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.95])
def test_an_archive_takes_the_bytes_that_are_estimated(sparsity, number):
    layers = dict(enumerate([layer(300, 200), layer(100, 100, seed=1, scale=2.0)]))
    _, estimated = totals({i: sample(*one) for i, one in layers.items()}, sparsity, number)
    threshold = torch.cat([w.abs().flatten() for w, _ in layers.values()]).quantile(sparsity)
    tensors = {}
    for i, (weight, _) in layers.items():
        pruned = weight * (weight.abs() >= threshold)
        values = fit(pruned[pruned != 0], number - bool(sparsity))
        tensors[str(i)] = torch.where(pruned == 0, 0.0, values[assign(pruned, values).long()])
    assert archived_bytes(tensors) == pytest.approx(estimated, rel=0.05, abs=150)


def test_zeros_are_the_smallest_over_all_layers_and_cost_what_they_held():
    small, large = layer(50, 40, scale=0.1), layer(50, 40, seed=1)
    cost, _ = totals({"small": sample(*small), "large": sample(*large)}, 0.5, 0)
    magnitudes = np.concatenate([w.abs().flatten().numpy() for w, _ in (small, large)])
    fishers = np.concatenate([f.flatten().numpy() for _, f in (small, large)])
    masked = magnitudes.argsort()[:2000]
    assert cost == pytest.approx(0.5 * (fishers[masked] * magnitudes[masked] ** 2).sum(), rel=0.01)


def test_a_sample_of_a_large_layer_stands_for_all_of_it():
    weight, fisher = layer(500, 400)
    looked_at = sample(weight, fisher)
    assert len(looked_at.weights) < 20_000
    assert looked_at.each * len(looked_at.weights) == pytest.approx(200_000)
    whole = sum(float(f) * float(w) ** 2 for w, f in zip(weight.flatten(), fisher.flatten(), strict=True)) / 2
    pruned, _ = totals({"a": looked_at}, LARGEST, 0)
    assert pruned == pytest.approx(whole, rel=0.1)


def test_the_fraction_of_zeros_is_the_least_that_fits():
    layers = {"a": sample(*layer(100, 100)), "b": sample(*layer(50, 100, seed=1))}
    fraction = sparsity_for(layers, 8, 2000)
    assert totals(layers, fraction, 8)[1] <= 2000 < totals(layers, fraction - 0.005, 8)[1]
    assert sparsity_for(layers, 8, 1e6) == 0
    assert sparsity_for(layers, 8, 1.0) == LARGEST
