"""Regressors: map a student's features to the shape of a teacher's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_compress.arguments import check_count, check_decay, check_positive

__all__ = ["LeastSquares", "Regressor"]

_POOLS: dict[int, Any] = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


@dataclass(frozen=True)
class LeastSquares:
    """Settings of a linear regressor that is solved in closed form, not trained.

    FitNets train a layer between the student's features and the teacher's. Here that layer is the solution of
    ``W = argmin ||S W - T||^2 + penalty ||W||^2``, from moments averaged over the past batches. No optimizer, learning
    rate, checkpoint of weights or DDP is involved. A regressor maps features only where their shapes differ. Where
    positions differ, the larger side is average-pooled to the smaller.

    Args:
        decay: decay of the running mean of moments, in [0, 1).
        penalty: ridge, above 0, relative to the mean square of the student's features.
        dim: dimension of the channels: 1 for convolutions, -1 for tokens.

    Raises:
        TypeError: an argument is not a number, or ``dim`` no integer.
        ValueError: ``decay`` or ``penalty`` is out of its range.

    >>> LeastSquares(decay=0.5).decay
    0.5

    Paper: Romero et al., "FitNets: Hints for Thin Deep Nets", https://arxiv.org/abs/1412.6550 (2014).
    """

    decay: float = 0.9
    penalty: float = 1e-3
    dim: int = 1

    def __post_init__(self) -> None:
        check_decay(decay=self.decay)
        check_positive(penalty=self.penalty)
        check_count(-math.inf, dim=self.dim)


class Regressor:
    """The regressor of one pair of layers: its moments, and the linear map that they give.

    Args:
        settings: decay, penalty and dimension.

    Attributes:
        moments: of the batches that are done, a checkpoint holds them; None before the first.

    >>> student = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    >>> mapped, _ = Regressor(LeastSquares(penalty=1e-9))(student, student @ torch.ones(3, 5))
    >>> torch.allclose(mapped, student @ torch.ones(3, 5), atol=1e-4)
    True
    """

    def __init__(self, settings: LeastSquares) -> None:
        self._settings = settings
        self.moments: Tensor | None = None
        self._present: Tensor | None = None  # of these batches, and of the present one

    def join(self) -> None:
        """Let the present batch count: it is done."""
        self.moments = self.moments if self._present is None else self._present
        self._present = None

    def forget(self) -> None:
        """Forget the present batch: it has failed."""
        self._present = None

    def __call__(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Both with the teacher's channels and the smaller number of positions; unchanged if the shapes agree."""
        if student.shape == teacher.shape:
            return student, teacher
        dim = self._settings.dim
        if student.ndim != teacher.ndim or len(student) != len(teacher):
            raise ValueError(
                "need features of one batch and of equally many dimensions for a regressor, "
                f"got student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
            )
        # Moments of half-precision features overflow, and solving a linear system needs more digits.
        with torch.autocast(student.device.type, enabled=False):
            dtype = torch.promote_types(student.dtype, torch.float32)
            student, teacher = _pooled(student.to(dtype).movedim(dim, 1), teacher.to(dtype).movedim(dim, 1))
            rows = student.movedim(1, -1).flatten(0, -2)
            rows = torch.cat((rows, rows.new_ones(len(rows), 1)), 1)
            weight = self._solve(rows.detach(), teacher.movedim(1, -1).flatten(0, -2).detach())
            mapped = (rows @ weight).view(len(student), *student.shape[2:], -1).movedim(-1, dim)
        return mapped, teacher.movedim(1, dim)

    @torch.no_grad()
    def _solve(self, student: Tensor, teacher: Tensor) -> Tensor:
        """``[channels + 1, teacher channels]``, from the moments ``S^T [S, T] / rows``."""
        size = student.shape[1]
        moments = student.T @ torch.cat((student, teacher), 1) / len(student)
        before = self.moments if self._present is None else self._present
        if before is not None:
            moments = torch.lerp(moments, before.to(moments), self._settings.decay)
        self._present = moments
        gram, cross = moments[:, :size], moments[:, size:]
        ridge = self._settings.penalty * gram.diagonal().mean()
        weight: Tensor = torch.linalg.solve(gram + ridge * torch.eye(size, dtype=gram.dtype, device=gram.device), cross)
        return weight


def _pooled(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both ``[batch, channels, *positions]`` with the smaller number of positions along each dimension."""
    positions = [min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    if student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    if len(positions) not in _POOLS:
        raise ValueError(f"need 1 to 3 dimensions of positions to pool, got {len(positions)}")
    pool = _POOLS[len(positions)]
    return pool(student, positions), pool(teacher, positions)
