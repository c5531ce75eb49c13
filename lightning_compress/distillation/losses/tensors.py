"""Tensors that losses receive: checked, reshaped and at least in float32."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["check_same_shape", "in_float32", "rows_of_logits", "rows_of_samples"]


def in_float32(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in one dtype of at least float32: sums of half-precision squares overflow."""
    dtype = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
    return student.to(dtype), teacher.to(dtype)


def check_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Refuse tensors of different shapes.

    Raises:
        ValueError: the shapes differ.
    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"need student and teacher of one shape, got student {tuple(student.shape)}, teacher {tuple(teacher.shape)}"
        )


def rows_of_logits(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Logits ``[..., classes]`` as rows, ``[rows, classes]``.

    Raises:
        ValueError: the shapes differ, or there are fewer than 2 classes.

    >>> [tuple(rows.shape) for rows in rows_of_logits(torch.zeros(2, 5, 3), torch.zeros(2, 5, 3))]
    [(10, 3), (10, 3)]
    """
    check_same_shape(student, teacher)
    if student.ndim == 0 or student.shape[-1] < 2:
        raise ValueError(
            f"need logits of at least 2 classes, got shape {tuple(student.shape)}: for the outputs of a regression, "
            "pass losses=[losses.mse]"
        )
    student, teacher = in_float32(student, teacher)
    return student.reshape(-1, student.shape[-1]), teacher.reshape(-1, teacher.shape[-1])


def rows_of_samples(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Features ``[batch, ...]`` as one vector per sample, ``[batch, features]``.

    Raises:
        ValueError: the batches differ or hold a single sample.

    >>> [tuple(rows.shape) for rows in rows_of_samples(torch.zeros(2, 5, 3), torch.zeros(2, 4))]
    [(2, 15), (2, 4)]
    """
    if len(student) != len(teacher) or len(student) < 2:
        raise ValueError(f"need one batch of at least 2 samples, got student {len(student)}, teacher {len(teacher)}")
    student, teacher = in_float32(student, teacher)
    return student.flatten(1), teacher.flatten(1)
