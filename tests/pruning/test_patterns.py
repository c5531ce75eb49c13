import math

import numpy as np
import pytest
import torch

from lightning_compress.pruning.patterns import NM, Block, Pattern, Unstructured

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
def test_block_sums_and_spreads(shape, rows, columns):
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
        (Block(4, 4), r"need a matrix that blocks of 4 x 4 fill .*, got 'w' as 6 x 8: add it to exclude"),
    ],
)
def test_what_does_not_divide_is_refused(pattern, match):
    with pytest.raises(ValueError, match=match):
        pattern.check("w", torch.Size((6, 8)))


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: NM(0, 4), ValueError, "need n >= 1, got n=0"),
        (lambda: NM(4, 4), ValueError, "need n < m, got n=4, m=4"),
        (lambda: NM(5, 4), ValueError, "need n < m, got n=5, m=4"),
        (lambda: NM(2.0, 4), TypeError, "need n as an integer, got 2.0"),
        (lambda: NM(2, "4"), TypeError, "need m as an integer, got '4'"),
        (lambda: Block(0, 4), ValueError, "need rows >= 1, got rows=0"),
        (lambda: Block(4, 1.5), TypeError, "need columns as an integer, got 1.5"),
    ],
)
def test_bad_patterns(make, error, match):
    with pytest.raises(error, match=match):
        make()


@pytest.mark.parametrize("shape", SHAPES)
def test_nm_counts_groups_that_do_not_keep_n(shape):
    """Against a count of each group, with numpy."""
    kept = scores(shape) > 0.5
    counts = np.moveaxis(kept.numpy(), 1, -1).reshape(-1, 4).sum(1)
    assert NM(2, 4).broken(kept, 1.0) == (counts != 2).sum() > 0
    assert NM(2, 4).broken(kept, 0.5) == (counts < 2).sum() > 0
    assert NM(2, 4).broken(NM(2, 4).units(scores(shape)) == math.inf, 1.0) == 0


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_block_counts_blocks_that_are_not_whole(shape, strength):
    pattern = Block(2, 4)
    kept = pattern.spread(pattern.units(scores(shape)) > 4, torch.Size(shape))
    assert kept.any()
    assert pattern.broken(kept, strength) == 0
    kept.view(shape[0], -1)[0, 0].logical_not_()
    kept.view(shape[0], -1)[-1, 3:5].logical_not_()  # two blocks beside each other
    assert pattern.broken(kept, strength) == 3


def test_a_pattern_of_ones_own_promises_nothing_by_default():
    class Pairs(Pattern):
        def units(self, scores):
            return scores.reshape(-1, 2).sum(1)

        def spread(self, kept, shape):
            return kept.repeat_interleave(2).reshape(shape)

    assert Pairs().sparsity is None
    assert Pairs().check("w", torch.Size((3, 3))) is None
    assert Pairs().broken(torch.tensor([[True, False]]), 1.0) == 0
