"""Factorizations: the singular values of a weight, its projection onto a subspace, and its two factors.

A weight ``(out, in, ...)`` is seen as the matrix ``W`` of shape ``(out, in * ...)``. With its singular value
decomposition ``W = U S V^T`` and the first ``r`` columns ``U_r``, the nearest matrix of rank ``r`` in the Frobenius
norm is::

    P(W) = U_r U_r^T W        |W - P(W)|^2 = sum of s_i^2 over i > r

Paper: Eckart and Young, "The approximation of one matrix by another of lower rank", Psychometrika 1 (1936).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["decompose", "factors", "numerical_rank", "project", "tail"]


def decompose(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Left singular vectors ``(out, k)``, and squared singular values as fractions of their sum, largest first.

    They come from the eigenvectors of the smaller of ``W W^T`` and ``W^T W`` in double precision, which takes a
    fraction of the time of a singular value decomposition.

    Args:
        matrix: ``(out, n)``; ``k = min(out, n)``.

    >>> vectors, energies = decompose(torch.diag(torch.tensor([3.0, 4.0])))
    >>> energies.tolist()
    [0.64, 0.36]
    >>> vectors.abs().tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    outputs, inputs = matrix.shape
    wide = outputs <= inputs
    double = matrix.double()
    squares, vectors = torch.linalg.eigh(double @ double.T if wide else double.T @ double)
    squares, vectors = squares.flip(0).clamp(min=0), vectors.flip(1)
    if not wide:  # orthonormal also where singular values are zero
        vectors = torch.linalg.qr(double @ vectors).Q
    vectors = vectors.to(matrix.dtype)
    return vectors, squares / squares.sum().clamp(min=torch.finfo(squares.dtype).tiny)


def project(matrix: Tensor, basis: Tensor) -> Tensor:
    """Project the columns of ``matrix`` onto the span of ``basis``: ``B B^T W``.

    Args:
        matrix: ``(out, n)``.
        basis: ``(out, rank)``, its columns orthonormal.
    """
    return basis @ (basis.T @ matrix)


def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factors ``L (out, rank)`` and ``R (rank, n)`` of equal norm, whose product is nearest to ``matrix``.

    ``L = U_r sqrt(S_r)`` and ``R = sqrt(S_r) V_r^T``: of all pairs with this product, these have the least norms, and
    gradients of equal size.

    >>> left, right = factors(torch.diag(torch.tensor([4.0, 1.0])), 1)
    >>> (left @ right).tolist()
    [[4.0, 0.0], [0.0, 0.0]]
    """
    u, s, vh = torch.linalg.svd(matrix, full_matrices=False)
    roots = s[:rank].sqrt()
    return u[:, :rank] * roots, roots.unsqueeze(1) * vh[:rank]


def tail(matrix: Tensor, rank: int) -> float:
    """Norm of the singular values beyond ``rank``, as a fraction of the norm of the matrix."""
    return float(_tails(matrix)[rank]) if rank < min(matrix.shape) else 0.0


def numerical_rank(matrix: Tensor, precision: float) -> int:
    """The smallest rank whose :func:`tail` is at most ``precision``.

    >>> numerical_rank(torch.tensor([[1.0, 2.0], [2.0, 4.0]]), precision=1e-6)
    1
    """
    return int(torch.count_nonzero(_tails(matrix) > precision))


def _tails(matrix: Tensor) -> Tensor:
    """Norm of the singular values from each on, as fractions of the norm of the matrix."""
    squares = torch.linalg.svdvals(matrix.double()).square()
    tails: Tensor = squares.flip(0).cumsum(0).flip(0).sqrt()
    return tails / tails[0].clamp(min=torch.finfo(tails.dtype).tiny)
