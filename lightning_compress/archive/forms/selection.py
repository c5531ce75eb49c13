"""Selection: the smallest form of a tensor, and the form that stored bytes have."""

import math
from hashlib import blake2b
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_compress.archive.coding.cursors import ArchiveError, Cursor
from lightning_compress.archive.coding.streams import LEAST, SPARED, entropy
from lightning_compress.archive.coding.words import Layout, WordCounts, Words, count_words, words_of
from lightning_compress.archive.forms.dense import Dense
from lightning_compress.archive.forms.grids import Columns, Grid, find_grid
from lightning_compress.archive.forms.palettes import MOST, Palette, steps_of

__all__ = ["FORMS", "Form", "encode", "read_form"]

SAMPLE = 1 << 16  # words that tell whether it is worth the time to count all
REMEMBERED = 1 << 25  # bytes of the forms that are remembered
FREQUENT = 4  # a word that occurs less often is not worth its entry in the palette of a sparse tensor


class Form(Protocol):
    """One way to store words."""

    @property
    def name(self) -> str:
        """Name of the form in tables."""
        ...

    def pieces(self) -> list[bytes]:
        """The form as it is stored, without its tag."""
        ...

    def fill(self, out: Tensor) -> None:
        """Decode the elements into `out`, contiguous and flat."""
        ...

    def bound(self) -> float:
        """The zero-order entropy of all streams, and scales and palettes as plain numbers, in bits."""
        ...


FORMS: tuple[type[Dense] | type[Palette] | type[Grid], ...] = (
    Dense,
    Palette,
    Grid,
    Columns,
)  # the tag is the position


class _Memory(dict[bytes, list[bytes]]):
    """Forms by a key, of `REMEMBERED` bytes in all."""

    taken = 0

    def put(self, key: bytes, pieces: list[bytes]) -> list[bytes]:
        takes = _size(pieces) + 256  # of the objects
        if takes > REMEMBERED:
            return pieces
        if self.taken + takes > REMEMBERED:
            self.clear()
            self.taken = 0
        self[key] = pieces
        self.taken += takes
        return pieces


_REMEMBERED = _Memory()


def encode(tensor: Tensor) -> list[bytes]:
    """A contiguous tensor in its shortest form, the simpler one on a tie, after the tag of that form; in pieces.

    A model is weighed and then written, so its forms are remembered.
    """
    kind = blake2b(f"{tensor.dtype} {tuple(tensor.shape)}".encode()).digest()
    key = blake2b(words_of(tensor).view(np.uint8).data, digest_size=32, key=kind).digest()
    return _REMEMBERED.get(key) or _REMEMBERED.put(key, _shortest(tensor))


def _shortest(tensor: Tensor) -> list[bytes]:
    words, rotated = words_of(tensor), Layout.of(tensor.dtype).rotated
    best = _stored(Dense.of(words, rotated))
    if words.size == 0 or words.itemsize == 1:  # the codes of single bytes would be these bytes again
        return best
    distinct = words.size
    if _repeat(words):
        found = count_words(words, MOST, FREQUENT)
        distinct = found.distinct
        if 0 < found.frequent.size < distinct and _pays(found, words.size, _size(best)):
            best = min(best, _stored(Palette.of(words, np.sort(found.frequent), rotated)), key=_size)
        if found.all is not None and _least(found, found.all, words.size) < _size(best):
            best = min(best, _stored(Palette.of(words, found.all, rotated)), key=_size)
    if tensor.is_floating_point() and (grid := find_grid(tensor, distinct)):
        best = min(best, _stored(grid), key=_size)
    return best


def _stored(form: Dense | Palette | Grid) -> list[bytes]:
    return [bytes([FORMS.index(type(form))]), *form.pieces()]


def _size(pieces: list[bytes]) -> int:
    return sum(map(len, pieces))


def read_form(data: bytes, count: int, dtype: torch.dtype) -> Dense | Palette | Grid:
    """Parse the result of `encode` for `count` elements; only `Form.fill` decodes them.

    Raises:
        ArchiveError: if the bytes are not exactly one form.
    """
    cursor, layout = Cursor(data), Layout.of(dtype)
    tag = cursor.take(1)[0]
    if tag >= len(FORMS):
        raise ArchiveError(f"the archive is damaged: need a form below {len(FORMS)}, got {tag}")
    form = FORMS[tag].read(cursor, count * layout.parts, layout)
    if cursor.remaining:
        raise ArchiveError(f"the archive is damaged: {cursor.remaining} bytes are left over")
    return form


def _repeat(words: Words) -> bool:
    """Whether so many words of a random sample occur in it again that a palette may pay.

    Where frequent words save a hundredth of the dense form, more than 400 of 65,536 are expected to; of random float32
    weights of one layer about 170 do.
    """
    if words.size <= SAMPLE:
        return True
    places = np.unique(np.random.default_rng(0).integers(words.size, size=SAMPLE))  # the same in every run
    return places.size - np.unique(words[places]).size > SAMPLE >> 8


def _least(found: WordCounts, entries: Words, count: int) -> float:
    """Bytes of a palette of all words, at least: entries and codes; nothing is coded to know it."""
    others = count - int(found.counts.sum())
    most = min(FREQUENT - 1, others - (found.distinct - found.frequent.size) + 1)  # of one of the other words
    rare = others * math.log2(count / most) if others else 0.0
    frequent = float((found.counts * np.log2(count / found.counts)).sum())
    codes = (frequent + rare + found.distinct) / 8 - SPARED  # each takes a bit in the table
    return Dense.least(steps_of(entries)) + max(LEAST, codes)


def _pays(found: WordCounts, count: int, dense_bytes: int) -> bool:
    """Whether a palette of the frequent words is worth its time: it takes a hundredth less than the dense form.

    The other words are taken at the mean size of the dense ones.
    """
    others = count - int(found.counts.sum())
    codes = entropy(np.append(found.counts, others)) / 8
    return codes + dense_bytes * others / count < 0.99 * dense_bytes
