"""Dense: the bytes of the words, in streams."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lightning_compress.archive.coding.cursors import ArchiveError, Cursor
from lightning_compress.archive.coding.streams import CHUNK, Coded, Plain, least_bytes, shorter, stream_entropy
from lightning_compress.archive.coding.words import Layout, Words, rotate_left, rotate_right, words_of

__all__ = ["Dense"]


@dataclass(frozen=True)
class Dense:
    """Every byte of the words in a stream of its own, the lowest first.

    The words of floating point numbers are rotated left by one bit before: so the exponent fills the highest
    byte, the only one worth coding, and the sign lies below the mantissa.
    """

    planes: tuple[Plain | Coded, ...]
    rotated: bool
    name: str = "dense"

    @classmethod
    def of(cls, words: Words, rotated: bool) -> "Dense":
        """Split words, shape [n], into planes."""
        if words.size <= CHUNK:
            return cls(tuple(shorter(_planes(words, rotated))), rotated)
        shifts = range(0, 8 * words.itemsize, 8)  # one byte of every word in memory at a time
        return cls(tuple(shorter(_plane(words, shift, rotated)[None])[0] for shift in shifts), rotated)

    @staticmethod
    def least(words: Words) -> float:
        """Bytes of the planes of words, shape [n] with n at most `CHUNK`, that are not rotated, at least."""
        return least_bytes(_planes(words, rotated=False))

    @classmethod
    def read(cls, cursor: Cursor, count: int, layout: Layout) -> "Dense":
        """Parse the planes of `count` words."""
        coded = cursor.take(1)[0]
        if coded >> layout.width:
            raise ArchiveError(f"the archive is damaged: {layout.width} bytes per word, but streams {coded:b}")
        planes = (
            Coded.read(cursor, count, alphabet=256) if coded >> index & 1 else Plain(cursor.view(count))
            for index in range(layout.width)
        )
        return cls(tuple(planes), layout.rotated)

    def pieces(self) -> list[bytes]:
        coded = sum(isinstance(plane, Coded) << index for index, plane in enumerate(self.planes))
        return [bytes([coded]), *(plane.to_bytes() for plane in self.planes)]

    def fill(self, out: Tensor) -> None:
        self.fill_words(words_of(out))

    def fill_words(self, out: Words) -> None:
        """Decode into words, shape [n]."""
        start = 0
        for planes in zip(*(plane.chunks() for plane in self.planes), strict=True):
            part = out[start : start + planes[0].size]
            part[:] = planes[0]
            for index, plane in enumerate(planes[1:], start=1):
                part |= plane.astype(out.dtype) << (8 * index)
            if self.rotated:
                part[:] = rotate_right(part)
            start += part.size

    def bound(self) -> float:
        return sum(map(stream_entropy, self.planes))


def _planes(words: Words, rotated: bool) -> NDArray[np.uint8]:
    """The bytes of all words, shape [B, n]."""
    whole = rotate_left(words) if rotated else words
    little = np.ascontiguousarray(whole, dtype=whole.dtype.newbyteorder("<"))
    planes: NDArray[np.uint8] = little.view(np.uint8).reshape(words.size, words.itemsize).T.copy()
    return planes


def _plane(words: Words, shift: int, rotated: bool) -> NDArray[np.uint8]:
    """One byte of every word, the one from bit `shift` on."""
    plane = np.empty(words.size, np.uint8)
    for start in range(0, words.size, CHUNK):
        part = words[start : start + CHUNK]
        plane[start : start + CHUNK] = (rotate_left(part) if rotated else part) >> shift & 255
    return plane
