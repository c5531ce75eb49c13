"""Against singular value decompositions of numpy and scipy, in double precision."""

import numpy as np
import pytest
import scipy.linalg
import torch

from lightning_compress.low_rank.factorization import decompose, factors, numerical_rank, project, tail

SHAPES = [(8, 8), (6, 20), (20, 6), (1, 5), (5, 1)]


def matrix(shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def nearest(weight, rank):
    u, s, vh = np.linalg.svd(weight.numpy(), full_matrices=False)
    return torch.tensor(u[:, :rank] * s[:rank] @ vh[:rank])


@pytest.mark.parametrize("shape", SHAPES)
def test_energies_are_the_squared_singular_values(shape):
    squares = scipy.linalg.svdvals(matrix(shape).numpy()) ** 2
    _, energies = decompose(matrix(shape))
    np.testing.assert_allclose(energies.numpy(), squares / squares.sum(), rtol=1e-9)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_projection_is_the_nearest_matrix_of_its_rank(shape, dtype):
    weight = matrix(shape, dtype=dtype)
    vectors, _ = decompose(weight)
    for rank in range(1, min(shape) + 1):
        found = project(weight, vectors[:, :rank])
        expected = nearest(weight.double(), rank)
        torch.testing.assert_close(found, expected.to(dtype), rtol=1e-4, atol=1e-5)
        # Eckart and Young: the distance is the norm of the singular values that are left out.
        left_out = scipy.linalg.svdvals(weight.double().numpy())[rank:]
        assert (weight - found).norm().item() == pytest.approx(np.linalg.norm(left_out), rel=1e-4, abs=1e-5)


def test_no_matrix_of_the_same_rank_is_nearer():
    weight = matrix((6, 9))
    vectors, _ = decompose(weight)
    least = (weight - project(weight, vectors[:, :3])).norm()
    for seed in range(50):
        other = torch.linalg.qr(matrix((6, 3), seed + 1)).Q
        assert (weight - project(weight, other)).norm() >= least


@pytest.mark.parametrize("shape", [(4, 7), (7, 4)])
def test_vectors_are_orthonormal_where_singular_values_are_zero(shape):
    weight = torch.outer(torch.ones(shape[0]), torch.ones(shape[1]))
    for given in (weight, torch.zeros(shape)):
        vectors, energies = decompose(given)
        torch.testing.assert_close(vectors.T @ vectors, torch.eye(4), rtol=0, atol=1e-5)
        assert energies.isfinite().all()
        torch.testing.assert_close(project(given, vectors[:, :1]), given)


@pytest.mark.parametrize("shape", SHAPES)
def test_factors_have_the_nearest_product_and_equal_norms(shape):
    weight = matrix(shape)
    rank = max(1, min(shape) // 2)
    left, right = factors(weight, rank)
    assert left.shape == (shape[0], rank)
    assert right.shape == (rank, shape[1])
    torch.testing.assert_close(left @ right, nearest(weight, rank))
    torch.testing.assert_close(left.T @ left, right @ right.T)


def test_the_tail_is_a_fraction_of_the_norm():
    weight = torch.diag(torch.tensor([4.0, 3.0]))
    assert [tail(weight, rank) for rank in range(3)] == pytest.approx([1.0, 0.6, 0.0])


@pytest.mark.parametrize("rank", range(5))
def test_the_numerical_rank_is_that_of_numpy(rank):
    weight = matrix((6, rank)) @ matrix((rank, 9), seed=1)
    assert numerical_rank(weight, 1e-9) == np.linalg.matrix_rank(weight.numpy()) == rank


def test_rounding_to_bfloat16_leaves_the_numerical_rank():
    weight = (matrix((20, 3)) @ matrix((3, 30), seed=1)).bfloat16()
    assert numerical_rank(weight, 16 * torch.finfo(torch.bfloat16).eps) <= 3
    assert numerical_rank(weight, 1e-6) == 20
