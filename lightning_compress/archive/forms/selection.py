"""Selection: the smallest form of a tensor, and the form that stored bytes have."""

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_compress.archive.coding.cursors import ArchiveError, Cursor
from lightning_compress.archive.coding.words import Layout, words_of
from lightning_compress.archive.forms.dense import Dense
from lightning_compress.archive.forms.grids import Columns, Grid, find_grid
from lightning_compress.archive.forms.palettes import MOST, Palette

__all__ = ["FORMS", "Form", "encode", "read_form"]

FREQUENT = 4  # a word that occurs less often is not worth its entry in the palette of a sparse tensor


class Form(Protocol):
    """One way to store words."""

    @property
    def name(self) -> str:
        """Name of the form in tables."""
        ...

    def to_bytes(self) -> bytes:
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


def encode(tensor: Tensor) -> bytes:
    """A contiguous tensor in its shortest form, the simpler one on a tie, after the tag of that form."""
    return min((bytes([FORMS.index(type(form))]) + form.to_bytes() for form in _forms(tensor)), key=len)


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
    yield Dense.of(words, rotated)
    if words.size == 0 or words.itemsize == 1:  # the codes of single bytes would be these bytes again
        return
    distinct, counts = np.unique(words, return_counts=True)
    if distinct.size <= MOST:
        yield Palette.of(words, distinct, rotated)
    order = np.argsort(-counts, kind="stable")[:MOST]
    frequent = np.sort(distinct[order[counts[order] >= FREQUENT]])
    if 0 < frequent.size < distinct.size:
        yield Palette.of(words, frequent, rotated)
    if tensor.is_floating_point() and (grid := find_grid(tensor)):
        yield grid
