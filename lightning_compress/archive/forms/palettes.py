"""Palettes: a code for each of the frequent words; the other words follow as a rest."""

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from lightning_compress.archive.coding.cursors import ArchiveError, Cursor, varint
from lightning_compress.archive.coding.streams import CHUNK, Coded, stream_entropy
from lightning_compress.archive.coding.words import Layout, Words, words_of
from lightning_compress.archive.forms.dense import Dense

__all__ = ["MOST", "Palette", "look_up", "steps_of"]

MOST = 1 << 12  # entries of a palette


@dataclass(frozen=True)
class Palette:
    """A code for every word; the code above the palette stands for the next word of the rest.

    Few distinct words leave no rest. Pruned weights are a palette of the one word 0, and a rest.

    Attributes:
        entries: the palette, ascending, shape [k].
        codes: one per word.
        others: how many words have no entry.
        rest: those words, in their order.
    """

    entries: Words
    codes: Coded
    others: int
    rest: Dense

    @property
    def name(self) -> str:
        return "sparse" if self.others else "palette"

    @classmethod
    def of(cls, words: Words, entries: Words, rotated: bool) -> "Palette":
        """Encode words, shape [n], with ascending entries, shape [k]."""
        codes = np.empty(words.size, np.uint16)
        rest = []
        for start in range(0, words.size, CHUNK):
            part = words[start : start + CHUNK]
            found = np.searchsorted(entries, part)
            other = entries[np.minimum(found, entries.size - 1)] != part
            found[other] = entries.size
            codes[start : start + CHUNK] = found
            rest.append(part[other])
        stream = Coded.of(codes)
        del codes  # before memory is taken for the rest
        others = np.concatenate(rest)
        return cls(entries, stream, others.size, Dense.of(others, rotated))

    @classmethod
    def read(cls, cursor: Cursor, count: int, layout: Layout) -> "Palette":
        """Parse a palette and `count` codes."""
        size, others = cursor.varint(), cursor.varint()
        if not 0 < size <= MOST or others > count:
            raise ArchiveError(f"the archive is damaged: a palette of {size} and {others} others for {count} words")
        entries = np.empty(size, f"u{layout.width}")
        Dense.read(cursor, size, layout._replace(rotated=False)).fill_words(entries)
        np.cumsum(entries, out=entries)
        return cls(entries, Coded.read(cursor, count), others, Dense.read(cursor, others, layout))

    def pieces(self) -> list[bytes]:
        steps = Dense.of(steps_of(self.entries), rotated=False)
        head = [varint(self.entries.size), varint(self.others), *steps.pieces()]
        return [*head, self.codes.to_bytes(), *self.rest.pieces()]

    def fill(self, out: Tensor) -> None:
        words = words_of(out)
        rest = np.empty(self.others, words.dtype)
        self.rest.fill_words(rest)
        look_up(self.codes, self.entries, rest, words)

    def bound(self) -> float:
        return stream_entropy(self.codes) + self.rest.bound() + 8 * self.entries.nbytes


def steps_of(entries: Words) -> Words:
    """Differences of ascending entries, the first from 0."""
    steps: Words = np.diff(entries, prepend=entries[:1] * 0)
    return steps


def look_up(codes: Coded, entries: Words, rest: Words, out: Words) -> None:
    """Write the entry of every code, and the next of the rest for the code above the entries."""
    largest = entries.size - (rest.size == 0)
    start = used = 0
    for chunk in codes.chunks():
        part = out[start : start + chunk.size]
        if chunk.max() > largest:
            raise ArchiveError("the archive is damaged: a code has no entry")
        np.take(entries, chunk, out=part, mode="clip")
        if rest.size:
            others = np.flatnonzero(chunk == entries.size)
            if used + others.size > rest.size:
                raise ArchiveError("the archive is damaged: a value is missing")
            part[others] = rest[used : used + others.size]
            used += others.size
        start += chunk.size
    if used != rest.size:
        raise ArchiveError("the archive is damaged: values are left over")
