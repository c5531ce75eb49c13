"""Grids: the few values that a quantized weight can take.

The weights that share a scale are a *row*; a :class:`~.granularities.Granularity` splits a weight into rows.
:class:`AffineGrid` holds evenly spaced values, which integer kernels compute with. A grid of your own is a frozen
dataclass that inherits from :class:`Grid`. It defines ``bits`` and ``nearest``, and a scale function of your own
returns it. Such a grid trains, resumes and is stored; only an affine grid can be lowered to integers.

>>> @dataclass(frozen=True, eq=False)
... class PowerGrid(Grid):
...     largest: Tensor  # (rows, 1): exponents
...
...     @property
...     def bits(self):
...         return 4  # zero, and seven powers of two of each sign
...
...     def nearest(self, rows):
...         exponents = rows.abs().log2().round()
...         values = rows.sign() * torch.exp2(exponents.clamp(self.largest - 6, self.largest))
...         return torch.where(exponents < self.largest - 7, 0.0, values)
>>> PowerGrid(torch.tensor([[0.0]])).project(torch.tensor([[0.3, -0.8, 0.0]])).tolist()
[[0.25, -1.0, 0.0]]
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

from lightning_compress.blocks import bundles, row_parts
from lightning_compress.quantization.granularities import Granularity, PerChannel, PerGroup, PerTensor

__all__ = ["AffineGrid", "BinaryGrid", "Grid", "built_in_grids", "precise", "project_"]


@dataclass(frozen=True, eq=False)
class Grid(ABC):
    """The values that the weights of a tensor can take, row by row.

    A subclass is a frozen dataclass. Each of its tensors has the shape ``(rows, n)``; its other fields are numbers,
    strings or tuples of them, which a checkpoint can hold. All its tensors are on the device of the weight.

    Attributes:
        transposed: whether the weight is ``(in, out)``; its rows are those of ``(out, in)``.
    """

    transposed: bool = field(default=False, kw_only=True)

    @property
    @abstractmethod
    def bits(self) -> int:
        """Bits per weight that are enough to tell the values of a row apart."""

    @abstractmethod
    def nearest(self, rows: Tensor) -> Tensor:
        """Round weights to the grid: ``(rows, weights in a row)`` -> the same shape and dtype.

        It must be a projection, ``nearest(nearest(w)) == nearest(w)``, and the value of a weight must depend on this
        weight and the tensors of its row alone: large weights are rounded part by part. Keep zero on the grid if
        weights are pruned.
        """

    def project(self, weight: Tensor) -> Tensor:
        """Round a weight to the grid."""
        return self._joined(self.nearest(self._rows(weight)), weight.shape)

    def project_(self, weight: Tensor, strength: float = 1.0) -> None:
        """Move a weight towards its nearest values, in place: ``w += strength * (project(w) - w)``.

        It is computed in at least float32.
        """
        rows = self._rows(weight)
        for grid, part in self._parts(rows):
            nearest = grid.nearest(precise(part)).to(part.dtype)
            part.copy_(nearest if strength == 1 else part.lerp(nearest, strength))
        if rows.untyped_storage().data_ptr() != weight.untyped_storage().data_ptr():  # groups of a transposed weight
            weight.copy_(self._joined(rows, weight.shape))

    def count_off(self, weight: Tensor) -> int:
        """Number of the entries that are not on the grid; NaN is not counted.

        >>> AffineGrid(torch.ones(1, 1), torch.zeros(1, 1), -1, 1).count_off(torch.tensor([[0.5, 1.0]]))
        1
        """
        return sum(
            int(torch.count_nonzero((grid.nearest(precise(part)).to(part.dtype) != part) & ~part.isnan()))
            for grid, part in self._parts(self._rows(weight))
        )

    def _parts(self, rows: Tensor) -> Iterator[tuple[Grid, Tensor]]:
        """Some rows at a time, or a part of one long row, with their grid."""
        for run, (part,) in row_parts(rows):
            yield self._with({name: tensor[run] for name, tensor in self._tensors().items()}), part

    @property
    def rows(self) -> int:
        """Number of rows, and so of scales."""
        return next((len(tensor) for tensor in self._tensors().values()), 1)

    def granularity(self, shape: torch.Size) -> Granularity:
        """The granularity that splits a weight of this shape into the rows of the grid."""
        if self.rows == 1:
            return PerTensor()
        channels = shape[-1] if self.transposed else shape[0]
        return PerChannel() if self.rows == channels else PerGroup(math.prod(shape) // self.rows)

    def part(self, granularity: Granularity, shape: torch.Size, narrow: Callable[[Tensor], Tensor]) -> Grid:
        """The grid of a part of the weight. The first weight that is left of a row brings the row's scale along.

        Args:
            granularity: of the weight.
            shape: of the whole weight.
            narrow: tensor of the shape of the whole weight -> its part.

        >>> grid = AffineGrid(torch.tensor([[1.0], [2.0]]), torch.zeros(2, 1), -1, 1)
        >>> grid.part(PerChannel(), torch.Size([2, 3]), lambda whole: whole[1:, :2]).scale
        tensor([[2.]])
        """
        tensors = self._tensors()
        if not tensors:
            return self
        indices = torch.arange(self.rows, device=next(iter(tensors.values())).device).view(-1, 1)
        whole = self._joined(indices.expand(-1, math.prod(shape) // self.rows), shape)
        kept = granularity.rows(self.outputs_first(narrow(whole)))[:, 0]
        return self._with({name: tensor[kept] for name, tensor in tensors.items()})

    def to(self, device: torch.device) -> Grid:
        """The same grid with its tensors on ``device``."""
        return self._with({name: tensor.to(device) for name, tensor in self._tensors().items()})

    def record(self) -> dict[str, Any]:
        """The fields by name: tensors and primitives for a checkpoint."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def restore(cls, record: Mapping[str, Any]) -> Grid:
        """The grid that :meth:`record` described."""
        return cls(**record)

    def outputs_first(self, tensor: Tensor) -> Tensor:
        """Transpose a tensor of the weight's shape to ``(out, in, ...)`` if the weight is stored as ``(in, out)``."""
        return tensor.t() if self.transposed else tensor

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def _with(self, tensors: Mapping[str, Any]) -> Grid:
        return replace(self, **tensors)

    def _rows(self, weight: Tensor) -> Tensor:
        return self.outputs_first(weight).reshape(self.rows, -1)

    def _joined(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """The inverse of :meth:`_rows`, for a weight of this shape."""
        return rows.reshape(shape[::-1]).t() if self.transposed else rows.reshape(shape)


@dataclass(frozen=True, eq=False)
class AffineGrid(Grid):
    """Evenly spaced values: ``(q - zero_point) * scale`` for integers ``q`` in [low, high], with one scale per row.

    Zero is on the grid, so that pruned weights stay zero.

    Attributes:
        scale: ``(rows, 1)``, above 0.
        zero_point: ``(rows, 1)``, the code of the value zero: an integer in [low, high] in the dtype of ``scale``.
        low: smallest code.
        high: largest code.

    >>> grid = AffineGrid(torch.tensor([[0.5]]), torch.tensor([[0.0]]), -1, 1)
    >>> grid.project(torch.tensor([[0.2, 0.3, -7.0]])).tolist()
    [[0.0, 0.5, -0.5]]
    """

    scale: Tensor
    zero_point: Tensor
    low: int
    high: int

    @property
    def bits(self) -> int:
        """Bits of a code.

        >>> AffineGrid(torch.ones(1, 1), torch.zeros(1, 1), -7, 7).bits
        4
        """
        return (self.high - self.low).bit_length()

    def codes(self, weight: Tensor) -> Tensor:
        """Codes of the values nearest to ``weight``, in its shape and dtype.

        ``clamp(round(w * (1 / scale)) + zero_point, low, high)``: the operations of
        ``torch.fake_quantize_per_channel_affine`` in the same order, so that both give the same bits.
        """
        return self._joined(self._codes(self._rows(weight)), weight.shape)

    def values(self, codes: Tensor) -> Tensor:
        """Values of integer codes, in the shape of ``codes``."""
        return self._joined(self._values(self._rows(codes)), codes.shape)

    def nearest(self, rows: Tensor) -> Tensor:
        return self._codes(rows).sub_(self.zero_point).mul_(self.scale)  # as _values, in place

    def _codes(self, rows: Tensor) -> Tensor:
        return (rows * (1 / self.scale)).round_().add_(self.zero_point).clamp_(self.low, self.high)

    def _values(self, codes: Tensor) -> Tensor:
        return (codes - self.zero_point).mul_(self.scale)


@dataclass(frozen=True, eq=False)
class BinaryGrid(AffineGrid):
    """The values ``-scale`` and ``+scale`` of each row; a weight that is exactly zero stays zero.

    >>> BinaryGrid(torch.tensor([[0.5]]), torch.tensor([[0.0]]), -1, 1).project(torch.tensor([[0.1, -3.0, 0.0]]))
    tensor([[ 0.5000, -0.5000,  0.0000]])
    """

    def nearest(self, rows: Tensor) -> Tensor:
        return self._values(rows.sign())


def project_(weights: Mapping[str, Tensor], grids: Mapping[str, Grid], strength: float = 1.0) -> None:
    """Apply :meth:`Grid.project_` to weights; small ones of one shape are rounded together, as one with all their rows.

    Args:
        weights: name -> weight.
        grids: name -> its grid.
        strength: in [0, 1].

    >>> weights = {"a": torch.tensor([[0.5], [1.0]]), "b": torch.tensor([[0.5], [1.0]])}
    >>> ones, tens = (AffineGrid(torch.full((1, 1), scale), torch.zeros(1, 1), -1, 1) for scale in (1.0, 10.0))
    >>> project_(weights, {"a": ones, "b": tens}, 0.5); weights
    {'a': tensor([[0.2500],
            [1.0000]]), 'b': tensor([[0.2500],
            [0.5000]])}
    """
    for names in bundles(weights, lambda name: name if grids[name].transposed else _kind(grids[name])):
        first, mine = grids[names[0]], [weights[name] for name in names]
        if len(names) == 1:
            first.project_(mine[0], strength)
            continue
        whole = torch.cat(mine)
        rows = {field: torch.cat([getattr(grids[name], field) for name in names]) for field in first._tensors()}
        first._with(rows).project_(whole, strength)
        torch._foreach_copy_(mine, whole.tensor_split(len(mine)))


def _kind(grid: Grid) -> Hashable:
    """The common part of grids whose rows can stand side by side: all but the values of their tensors."""
    values = [getattr(grid, field.name) for field in fields(grid)]
    return type(grid), *((value.shape[1:], value.dtype) if isinstance(value, Tensor) else value for value in values)


def built_in_grids(of: type[Grid] = Grid) -> dict[str, type[Grid]]:
    """Class name -> class, of the grids that this package defines.

    >>> sorted(built_in_grids())[:2]
    ['AffineGrid', 'BinaryGrid']
    """
    own = {kind.__name__: kind for kind in of.__subclasses__() if kind.__module__.startswith("lightning_compress.")}
    return own | {name: kind for below in own.values() for name, kind in built_in_grids(below).items()}


def precise(tensor: Tensor) -> Tensor:
    """``tensor`` in at least float32: grids are not computed in half precision."""
    return tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
