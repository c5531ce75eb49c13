"""Grids: integers times scales, where every product is a weight bit for bit."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_compress.archive.coding.cursors import ArchiveError, Cursor, varint, zigzag
from lightning_compress.archive.coding.streams import Coded, stream_entropy
from lightning_compress.archive.coding.words import Layout, words_of
from lightning_compress.archive.forms.dense import Dense
from lightning_compress.archive.forms.grid_search import LARGEST, grid_integers, grid_scales, may_lie_on_a_grid
from lightning_compress.archive.forms.palettes import look_up
from lightning_compress.blocks import row_parts

__all__ = ["Columns", "Grid", "find_grid"]

GROUPS = (256, 128, 64, 32, 16)  # lengths of groups with a scale of their own that are looked for


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

    def pieces(self) -> list[bytes]:
        head = [varint(self.scales.numel()), varint(zigzag(self.low))]
        return [*head, *Dense.of(words_of(self.scales), rotated=True).pieces(), self.codes.to_bytes()]

    def fill(self, out: Tensor) -> None:
        integers = torch.arange(self.codes.low + len(self.codes.roots) - 1) + self.low
        entries = words_of(torch.cat([torch.tensor([-0.0]), integers]).to(out.dtype))
        words = words_of(out)
        look_up(self.codes, entries, words[:0], words)
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

    def pieces(self) -> list[bytes]:
        return [varint(self.width), *super().pieces()]

    def _multiply(self, integers: Tensor) -> None:
        scales = self.scales.view(-1, 1, self.width)
        integers.view(len(scales), -1, self.width).mul_(scales)


def find_grid(tensor: Tensor, distinct: int) -> Grid | None:
    """The grid with the fewest scales: one for all, one per output channel, one per group of a channel.

    Args:
        tensor: floating point.
        distinct: how many different words it has.
    """
    return next(filter(None, _grids(tensor, distinct)), None)


def _grids(tensor: Tensor, distinct: int) -> Iterator[Grid | None]:
    """Channels are sought along the first dimension, then, of matrices, along the last."""
    channels = len(tensor) if tensor.ndim > 1 else 1
    length = tensor.numel() // channels
    sizes = [size for size in (length, *GROUPS) if length % size == 0]
    if may_lie_on_a_grid(tensor.reshape(-1, min(sizes))):
        for rows in dict.fromkeys([1, *(tensor.numel() // size for size in sizes)]):
            if distinct <= 2 * LARGEST * rows:  # a scale has fewer multiples
                yield Grid.of(tensor.reshape(rows, -1))
    if tensor.ndim == 2:
        sizes = [size for size in (channels, *GROUPS) if channels % size == 0]
        if may_lie_on_a_grid(tensor[: min(sizes)].T):  # before all are turned
            for size in dict.fromkeys(sizes):
                yield Columns.of_runs(tensor.view(-1, size, length))


class _OnGrid(NamedTuple):
    scales: Tensor
    low: int
    codes: Tensor  # int16, of the shape of the rows


def _on_grid(rows: Tensor) -> _OnGrid | None:
    scales = grid_scales(rows)
    if scales is None:
        return None
    codes = torch.empty(rows.shape, dtype=torch.int16)  # integers of a grid are below 2^12
    for run, (part, code) in row_parts(rows, codes):
        code.copy_(grid_integers(part, scales[run]))
    low = int(codes.amin())
    codes.sub_(low - 1)
    for _, (part, code) in row_parts(rows, codes):
        code.masked_fill_((part == 0) & part.signbit(), 0)
    return _OnGrid(scales, low, codes)
