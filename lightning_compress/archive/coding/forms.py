"""The forms in which a tensor is stored, of which the smallest is taken: dense, palette (or sparse), grid."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from lightning_compress.archive.coding.cursors import ArchiveError, Cursor, varint, zigzag
from lightning_compress.archive.coding.grid_search import grid_integers, grid_scales
from lightning_compress.archive.coding.streams import Coded, Plain, shorter, stream_entropy
from lightning_compress.archive.coding.words import Layout, Words, rotate_left, rotate_right, words_of

PALETTE = 1 << 12  # the most entries of a palette
FREQUENT = 4  # how often a word occurs, at least, to be worth its entry in the palette of a sparse tensor
GROUPS = (256, 128, 64, 32, 16)  # lengths of groups with a scale of their own that are looked for


class Form(Protocol):
    """One way to store words."""

    @property
    def name(self) -> str:
        """What the form is called where it is shown."""
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
        turned = rotate_left(words) if rotated else words
        shifts = range(0, 8 * words.itemsize, 8)
        return cls(tuple(shorter((turned >> shift).astype(np.uint8)) for shift in shifts), rotated)

    @classmethod
    def read(cls, cursor: Cursor, count: int, layout: Layout) -> "Dense":
        """Parse the planes of `count` words."""
        coded = cursor.take(1)[0]
        if coded >> layout.width:
            raise ArchiveError(f"the archive is damaged: {layout.width} bytes per word, but streams {coded:b}")
        planes = (
            Coded.read(cursor, count) if coded >> index & 1 else Plain(cursor.take(count))
            for index in range(layout.width)
        )
        return cls(tuple(planes), layout.rotated)

    def to_bytes(self) -> bytes:
        coded = sum(isinstance(plane, Coded) << index for index, plane in enumerate(self.planes))
        return bytes([coded]) + b"".join(plane.to_bytes() for plane in self.planes)

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
        codes = np.searchsorted(entries, words)
        rest = words[entries[np.minimum(codes, entries.size - 1)] != words]
        codes[entries[np.minimum(codes, entries.size - 1)] != words] = entries.size
        return cls(entries, Coded.of(codes), rest.size, Dense.of(rest, rotated))

    @classmethod
    def read(cls, cursor: Cursor, count: int, layout: Layout) -> "Palette":
        """Parse a palette and `count` codes."""
        size, others = cursor.varint(), cursor.varint()
        if not 0 < size <= PALETTE or others > count:
            raise ArchiveError(f"the archive is damaged: a palette of {size} and {others} others for {count} words")
        entries = np.empty(size, f"u{layout.width}")
        Dense.read(cursor, size, layout._replace(rotated=False)).fill_words(entries)
        np.cumsum(entries, out=entries)
        return cls(entries, Coded.read(cursor, count), others, Dense.read(cursor, others, layout))

    def to_bytes(self) -> bytes:
        steps = Dense.of(np.diff(self.entries, prepend=self.entries[:1] * 0), rotated=False)
        head = varint(self.entries.size) + varint(self.others) + steps.to_bytes()
        return head + self.codes.to_bytes() + self.rest.to_bytes()

    def fill(self, out: Tensor) -> None:
        words = words_of(out)
        rest = np.empty(self.others, words.dtype)
        self.rest.fill_words(rest)
        _look_up(self.codes, self.entries, rest, words)

    def bound(self) -> float:
        return stream_entropy(self.codes) + self.rest.bound() + 8 * self.entries.nbytes


@dataclass(frozen=True)
class Grid:
    """Integers times scales, one scale for every run of n / R elements.

    Attributes:
        scales: shape [R], floating point.
        low: the integer of code 1, that of code 2 is one more, and so on; code 0 is -0.0.
        codes: one per element.
    """

    scales: Tensor
    low: int
    codes: Coded
    name: str = "grid"

    @staticmethod
    def of(rows: Tensor) -> "Grid | None":
        """Encode floating point weights, shape [R, N], if every row lies on a grid."""
        found = _on_grid(rows)
        return found and Grid(found.scales, found.low, Coded.of(found.codes.flatten().numpy()))

    @classmethod
    def read(cls, cursor: Cursor, count: int, layout: Layout) -> "Grid":
        """Parse scales and `count` codes."""
        rows, low = cursor.varint(), cursor.signed()
        if not layout.dtype.is_floating_point or not 0 < rows <= count or count % rows:
            raise ArchiveError(f"the archive is damaged: {rows} scales for {count} elements of {layout.dtype}")
        scales = torch.empty(rows, dtype=layout.dtype)
        Dense.read(cursor, rows, layout).fill(scales)
        return cls(scales, low, Coded.read(cursor, count))

    def to_bytes(self) -> bytes:
        head = varint(self.scales.numel()) + varint(zigzag(self.low))
        return head + Dense.of(words_of(self.scales), rotated=True).to_bytes() + self.codes.to_bytes()

    def fill(self, out: Tensor) -> None:
        integers = torch.arange(self.codes.low + len(self.codes.roots) - 1) + self.low
        entries = words_of(torch.cat([torch.tensor([-0.0]), integers]).to(out.dtype))
        words = words_of(out)
        _look_up(self.codes, entries, words[:0], words)
        self._multiply(out)

    def _multiply(self, integers: Tensor) -> None:
        integers.view(self.scales.numel(), -1).mul_(self.scales[:, None])

    def bound(self) -> float:
        return stream_entropy(self.codes) + 8 * self.scales.nbytes


@dataclass(frozen=True)
class Columns(Grid):
    """Integers times scales, one scale for every column of each of R / W runs of rows: of weights (in, out).

    Attributes:
        width: W, the length of a row.
    """

    width: int = 1

    @staticmethod
    def of_runs(runs: Tensor) -> "Columns | None":
        """Encode floating point weights, shape [R / W, N, W], if every column of each run lies on a grid."""
        width = runs.shape[2]
        if grid_scales(runs[:1, :, 0]) is None:  # before all are turned
            return None
        found = _on_grid(runs.transpose(1, 2).flatten(0, 1))
        if found is None:
            return None
        codes = found.codes.view(-1, width, runs.shape[1]).transpose(1, 2).flatten()
        return Columns(found.scales, found.low, Coded.of(codes.numpy()), width=width)

    @classmethod
    def read(cls, cursor: Cursor, count: int, layout: Layout) -> "Columns":
        """Parse the width, scales and `count` codes."""
        width, grid = cursor.varint(), Grid.read(cursor, count, layout)
        if not width or grid.scales.numel() % width:
            raise ArchiveError(f"the archive is damaged: {grid.scales.numel()} scales for rows of {width}")
        return cls(grid.scales, grid.low, grid.codes, width=width)

    def to_bytes(self) -> bytes:
        return varint(self.width) + super().to_bytes()

    def _multiply(self, integers: Tensor) -> None:
        scales = self.scales.view(-1, 1, self.width)
        integers.view(len(scales), -1, self.width).mul_(scales)


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
    """Parse what `encode` wrote of `count` elements; they are decoded only by `Form.fill`.

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
    if distinct.size <= PALETTE:
        yield Palette.of(words, distinct, rotated)
    order = np.argsort(-counts, kind="stable")[:PALETTE]
    frequent = np.sort(distinct[order[counts[order] >= FREQUENT]])
    if 0 < frequent.size < distinct.size:
        yield Palette.of(words, frequent, rotated)
    if tensor.is_floating_point() and (grid := _grid(tensor)):
        yield grid


class _OnGrid(NamedTuple):
    scales: Tensor
    low: int
    codes: Tensor  # of the shape of the rows


def _on_grid(rows: Tensor) -> _OnGrid | None:
    scales = grid_scales(rows)
    if scales is None:
        return None
    integers = grid_integers(rows, scales)
    low = int(integers.min())
    return _OnGrid(scales, low, torch.where((rows == 0) & rows.signbit(), 0, integers - low + 1))


def _grid(tensor: Tensor) -> Grid | None:
    """The grid with the fewest scales: one for all, one per output channel, one per group of a channel."""
    return next(filter(None, _grids(tensor)), None)


def _grids(tensor: Tensor) -> Iterator[Grid | None]:
    """Channels are sought along the first dimension, then, of matrices, along the last."""
    channels = len(tensor) if tensor.ndim > 1 else 1
    length = tensor.numel() // channels
    sizes = [size for size in (length, *GROUPS) if length % size == 0]
    for rows in dict.fromkeys([1, *(tensor.numel() // size for size in sizes)]):
        yield Grid.of(tensor.reshape(rows, -1))
    if tensor.ndim == 2:
        for size in dict.fromkeys(size for size in (channels, *GROUPS) if channels % size == 0):
            yield Columns.of_runs(tensor.view(-1, size, length))


def _look_up(codes: Coded, entries: Words, rest: Words, out: Words) -> None:
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
