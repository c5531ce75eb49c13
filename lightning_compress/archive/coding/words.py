"""Tensors as words: the bit patterns of their elements as unsigned integers.

Equal words are equal bit for bit, in every dtype: -0.0 is not 0.0, and one NaN is not another.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_compress.archive.coding.streams import CHUNK

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


class WordCounts(NamedTuple):
    """How often words occur.

    Attributes:
        distinct: how many different words there are.
        all: the different words, ascending, if they are few.
        frequent: the words that occur most often, the most frequent first; the smaller first of those as frequent.
        counts: how often each of the frequent words occurs.
    """

    distinct: int
    all: Words | None
    frequent: Words
    counts: NDArray[np.int64]


def count_words(words: Words, most: int, often: int) -> WordCounts:
    """Count words in the memory of one copy of them.

    Args:
        words: shape [n], at least one.
        most: how many different words are few, and how many frequent words are wanted.
        often: how often a frequent word occurs, at least.

    Example:
        >>> count_words(np.array([3, 1, 1, 1], np.uint32), most=2, often=2)
        WordCounts(distinct=2, all=array([1, 3], dtype=uint32), frequent=array([1], dtype=uint32), counts=array([3]))
    """
    ordered = np.sort(words)
    distinct, few = 0, ordered[:0]
    frequent, counts = ordered[:0], np.zeros(0, np.int64)
    start = 0
    while start < ordered.size:
        end = min(start + CHUNK, ordered.size)
        end = int(ordered.searchsorted(ordered[end - 1], side="right"))  # all of the last word
        firsts = np.flatnonzero(np.concatenate([[True], ordered[start + 1 : end] != ordered[start : end - 1]]))
        found, repeated = ordered[start:end][firsts], np.diff(firsts, append=end - start)
        distinct += found.size
        few = np.concatenate([few, found[: max(0, most + 1 - few.size)]])
        frequent = np.concatenate([frequent, found[repeated >= often]])
        counts = np.concatenate([counts, repeated[repeated >= often]])
        order = np.argsort(-counts, kind="stable")[:most]
        order.sort()  # ascending words, so that the smaller ones stay ahead of others as frequent
        frequent, counts = frequent[order], counts[order]
        start = end
    order = np.argsort(-counts, kind="stable")
    return WordCounts(distinct, few if distinct <= most else None, frequent[order], counts[order])
