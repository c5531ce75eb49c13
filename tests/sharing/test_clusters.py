"""Clusters of several codebooks: each has the codes that it has by itself, whatever the others hold."""

import math

import numpy as np
import pytest
import torch

from lightning_compress.sharing.clusters import Clusters


def clusters(codebooks=6, codes=9, weights=50):
    """Random clusters, some without weights, and one codebook without any; and weights."""
    generator = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 4, (codebooks, codes), generator=generator).double()
    counts[2, 1:] = 0
    sums = torch.randn(codebooks, codes, generator=generator).double() * counts
    return Clusters(sums, counts), torch.randn(codebooks, weights, generator=generator)


def test_the_nearest_value_is_that_of_numpy():
    found, weights = clusters()
    for sums, counts, row, codes in zip(found.sums, found.counts, weights, found.nearest(weights), strict=True):
        used = 1 + np.flatnonzero(counts[1:].numpy())
        if not len(used):
            assert not codes.any()
            continue
        values = (sums / counts).numpy()[used].astype(np.float32)
        expected = used[np.abs(row.numpy()[:, None] - values).argmin(1)]
        assert codes.tolist() == expected.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("code", [0, 1, 5])
def test_a_value_that_is_no_number_does_not_move_the_codes_of_other_codebooks(value, code, dtype):
    found, weights = clusters()
    weights = weights.to(dtype)
    before = found.nearest(weights)
    found.counts[4, code] = 1
    found.sums[4, code], weights[4, 7] = value, value
    codes = found.nearest(weights)
    assert codes[4].all()  # code 0 is of zeros
    for i, (row, mine) in enumerate(zip(found.rows(), codes, strict=True)):
        assert torch.equal(row.nearest(weights[i][None])[0], mine)
        assert i == 4 or torch.equal(before[i], mine)
