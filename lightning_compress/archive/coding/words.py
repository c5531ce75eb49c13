"""Tensors as words: the bit patterns of their elements as unsigned integers.

Equal words are equal bit for bit, in every dtype: -0.0 is not 0.0, and one NaN is not another.
"""

from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor

Words = NDArray[Any]


class Layout(NamedTuple):
    """How the elements of a dtype lie in words.

    Attributes:
        dtype: of the elements.
        parts: words per element: two, the real and the imaginary part, for complex numbers.
        width: bytes per word.
        rotated: whether dense words are stored rotated: those of floating point numbers longer than a byte.
    """

    dtype: torch.dtype
    parts: int
    width: int
    rotated: bool

    @classmethod
    def of(cls, dtype: torch.dtype) -> "Layout":
        """The layout of a dtype.

        Example:
            >>> Layout.of(torch.complex64)
            Layout(dtype=torch.complex64, parts=2, width=4, rotated=True)
        """
        parts = 2 if dtype.is_complex else 1
        width = dtype.itemsize // parts
        return cls(dtype, parts, width, width > 1 and (dtype.is_complex or dtype.is_floating_point))


def words_of(tensor: Tensor) -> Words:
    """The words of a contiguous tensor, flat, as a view of its memory.

    Example:
        >>> words_of(torch.tensor([1.0, -0.0])).tolist() == [0x3F800000, 0x80000000]
        True
    """
    width = Layout.of(tensor.dtype).width
    view: Words = bytes_of(tensor).numpy().view(f"u{width}")
    return view


def bytes_of(tensor: Tensor) -> Tensor:
    """The memory of a contiguous tensor as uint8, shape [bytes]."""
    return tensor.reshape(-1).view(torch.uint8)


def rotate_left(words: Words) -> Words:
    """Every word rotated by one bit: the sign of a floating point number moves below its mantissa."""
    rotated: Words = words << 1 | words >> (8 * words.itemsize - 1)
    return rotated


def rotate_right(words: Words) -> Words:
    """The inverse of `rotate_left`."""
    rotated: Words = words >> 1 | words << (8 * words.itemsize - 1)
    return rotated
