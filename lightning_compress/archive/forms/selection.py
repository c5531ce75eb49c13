"""Selection: the smallest form of a tensor, and the form that stored bytes have."""

import math
from collections.abc import Iterator
from hashlib import blake2b
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_compress.archive.coding.cursors import ArchiveError, Cursor
from lightning_compress.archive.coding.streams import entropy
from lightning_compress.archive.coding.words import Layout, WordCounts, Words, count_words, words_of
from lightning_compress.archive.forms.dense import Dense
from lightning_compress.archive.forms.grids import Columns, Grid, find_grid
from lightning_compress.archive.forms.palettes import MOST, Palette, steps_of

__all__ = ["FORMS", "Form", "encode", "read_form"]

SAMPLE = 1 << 16  # words that tell whether it is worth the time to count all
SMALL, MANY = 1 << 10, 1 << 13  # elements of a tensor whose form is remembered, and how many are
SPARED = 8  # bytes that the coder takes less than the entropy, at most
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

_REMEMBERED: dict[bytes, list[bytes]] = {}


def encode(tensor: Tensor) -> list[bytes]:
    """A contiguous tensor in its shortest form, the simpler one on a tie, after the tag of that form; in pieces.

    A model of thousands of small tensors is weighed and then written, so small ones are remembered.
    """
    if tensor.numel() > SMALL:
        return _shortest(tensor)
    shape = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    key = blake2b(words_of(tensor).tobytes(), digest_size=32, key=blake2b(shape).digest()).digest()
    if key not in _REMEMBERED:
        if len(_REMEMBERED) == MANY:
            _REMEMBERED.clear()
        _REMEMBERED[key] = _shortest(tensor)
    return _REMEMBERED[key]


def _shortest(tensor: Tensor) -> list[bytes]:
    best: list[bytes] = []
    for form in _forms(tensor):
        pieces = [bytes([FORMS.index(type(form))]), *form.pieces()]
        if not best or sum(map(len, pieces)) < sum(map(len, best)):
            best = pieces
    return best


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


def _forms(tensor: Tensor) -> Iterator[Dense | Palette | Grid]:
    words, rotated = words_of(tensor), Layout.of(tensor.dtype).rotated
    dense = Dense.of(words, rotated)
    dense_bytes = sum(len(plane.body) for plane in dense.planes)
    yield dense
    del dense  # before memory is taken for others
    if words.size == 0 or words.itemsize == 1:  # the codes of single bytes would be these bytes again
        return
    distinct = words.size
    if _repeat(words):
        found = count_words(words, MOST, FREQUENT)
        distinct = found.distinct
        if found.all is not None and (distinct < words.size or _order_pays(found.all, dense_bytes)):
            yield Palette.of(words, found.all, rotated)
        if 0 < found.frequent.size < distinct and _pays(found, words.size, dense_bytes):
            yield Palette.of(words, np.sort(found.frequent), rotated)
    if tensor.is_floating_point() and (grid := find_grid(tensor, distinct)):
        yield grid


def _repeat(words: Words) -> bool:
    """Whether so many words of a random sample occur in it again that a palette may pay.

    Where frequent words save a hundredth of the dense form, more than 400 of 65,536 are expected to; of random float32
    weights of one layer about 170 do.
    """
    if words.size <= SAMPLE:
        return True
    places = np.unique(np.random.default_rng(0).integers(words.size, size=SAMPLE))  # the same in every run
    return places.size - np.unique(words[places]).size > SAMPLE >> 8


def _order_pays(entries: Words, dense_bytes: int) -> bool:
    """Whether words that all differ may be shorter sorted, with codes of their order, than in the dense form."""
    codes = entries.size * (1 + math.log2(entries.size)) / 8  # a bit of each is in the table
    steps = Dense.of(steps_of(entries), rotated=False)
    return codes + sum(len(plane.body) for plane in steps.planes) - SPARED < dense_bytes


def _pays(found: WordCounts, count: int, dense_bytes: int) -> bool:
    """Whether a palette of the frequent words is worth its time: it takes a hundredth less than the dense form.

    The other words are taken at the mean size of the dense ones.
    """
    others = count - int(found.counts.sum())
    codes = entropy(np.append(found.counts, others)) / 8
    return codes + dense_bytes * others / count < 0.99 * dense_bytes
