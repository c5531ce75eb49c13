"""Answers: the values that functions of a user return, which a method computes with."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

from torch import Tensor

from lightning_compress.arguments.texts import shown

__all__ = ["check_number_answer", "check_scalar_answer", "check_tensor_answer"]


def check_tensor_answer(call: str, function: object, answer: object, shape: Sequence[int] | None = None) -> None:
    """Refuse an answer that is no tensor, or one of another shape.

    Args:
        call: the function and its arguments, as the method calls it.
        function: the function.
        answer: its answer.
        shape: the shape that the answer needs; None for any.

    Raises:
        TypeError: the answer is no tensor.
        ValueError: it has another shape.

    >>> check_tensor_answer("init(values, clusters)", len, 3)
    Traceback (most recent call last):
    TypeError: need init(values, clusters) to return a tensor, got 3 from len
    """
    if not isinstance(answer, Tensor):
        raise TypeError(f"need {call} to return a tensor, got {shown(answer)} from {_name(function)}")
    if shape is not None and tuple(answer.shape) != tuple(shape):
        raise ValueError(
            f"need {call} to return a tensor of shape {tuple(shape)}, got {tuple(answer.shape)} from {_name(function)}"
        )


def check_number_answer(call: str, function: object, answer: object) -> None:
    """Refuse an answer that is no number.

    Raises:
        TypeError: the answer is text, None, a tensor.

    >>> check_number_answer("schedule(progress)", len, None)
    Traceback (most recent call last):
    TypeError: need schedule(progress) to return a number, got None from len
    """
    if not isinstance(answer, Real):
        raise TypeError(f"need {call} to return a number, got {shown(answer)} from {_name(function)}")


def check_scalar_answer(call: str, function: object, answer: object) -> None:
    """Refuse an answer that is no tensor of one number.

    Raises:
        TypeError: the answer is no tensor.
        ValueError: it has several numbers, or none.
    """
    check_tensor_answer(call, function, answer)
    if isinstance(answer, Tensor) and answer.numel() != 1:
        raise ValueError(
            f"need {call} to return a tensor of one number, got one of shape {tuple(answer.shape)} from "
            f"{_name(function)}"
        )


def _name(function: object) -> str:
    name: str = getattr(function, "__qualname__", None) or shown(function)
    return name
