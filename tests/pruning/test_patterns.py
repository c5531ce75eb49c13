import math

import numpy as np
import pytest
import torch

from lightning_compress.pruning.patterns import NM, Block, Unstructured

SHAPES = [(6, 8), (4, 8, 3, 3)]


def scores(shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", SHAPES)
def test_unstructured_is_the_identity(shape):
    values = scores(shape)
    assert Unstructured().units(values) is values
    assert Unstructured().spread(values > 0.5, values.shape).shape == shape


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("n", "m"), [(2, 4), (1, 4), (1, 2), (3, 8)])
def test_nm_protects_the_best_of_each_group(shape, n, m):
    """Against a loop over groups of inputs in numpy."""
    values = scores(shape)
    units = NM(n, m).units(values)
    rows = np.moveaxis(values.numpy(), 1, -1).reshape(-1, m)
    kept = np.moveaxis(units.numpy(), 1, -1).reshape(-1, m) == math.inf
    for row, keep in zip(rows, kept, strict=True):
        assert set(np.flatnonzero(keep)) == set(np.argsort(row)[-n:])


def test_nm_keeps_n_of_equal_scores():
    assert (NM(2, 4).units(torch.zeros(3, 8)) == math.inf).sum() == 3 * 2 * 2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("rows", "columns"), [(2, 4), (1, 8), (2, 1)])
def test_block_sums_tiles_and_spreads_them(shape, rows, columns):
    values = scores(shape)
    matrix = values.numpy().reshape(shape[0], -1)
    units = Block(rows, columns).units(values)
    for r in range(units.shape[0]):
        for c in range(units.shape[1]):
            tile = matrix[r * rows : (r + 1) * rows, c * columns : (c + 1) * columns]
            assert units[r, c].item() == pytest.approx(tile.sum(), rel=1e-5)
    expected = np.kron(units.numpy() > 1, np.ones((rows, columns), bool)).reshape(shape)
    np.testing.assert_array_equal(Block(rows, columns).spread(units > 1, values.shape).numpy(), expected)


@pytest.mark.parametrize(
    ("pattern", "match"),
    [
        (NM(2, 3), r"need a number of inputs that 3 divides for pattern=NM\(n=2, m=3\), got 'w' of shape \(6, 8\)"),
        (Block(4, 4), r"need a matrix that tiles of 4 x 4 fill .*, got 'w' as 6 x 8: add it to exclude"),
    ],
)
def test_what_does_not_divide_is_refused(pattern, match):
    with pytest.raises(ValueError, match=match):
        pattern.check("w", torch.Size((6, 8)))


def test_bad_patterns():
    for n, m in [(0, 4), (4, 4), (5, 4)]:
        with pytest.raises(ValueError, match=f"need 0 < n < m, got n={n}, m={m}"):
            NM(n, m)
    with pytest.raises(ValueError, match="need rows >= 1 and columns >= 1, got rows=0, columns=4"):
        Block(0, 4)
