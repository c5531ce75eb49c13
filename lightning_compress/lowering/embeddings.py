"""Embeddings whose table is int8 codes and scales."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_compress.lowering.integers import in_dtype
from lightning_compress.lowering.layers import mixed
from lightning_compress.quantization.grids import AffineGrid, precise

__all__ = ["IntegerRows", "QuantizedEmbedding", "quantize_embedding_"]


class IntegerRows(nn.Module):
    """The table of an embedding: codes ``(rows, width)``, and a scale for each group in a row.

    Args:
        weight: on ``grid``.
        grid: with one scale per row, one for all rows, or several per row.

    Attributes:
        dtype: of the rows that are looked up.
    """

    codes: Tensor
    scale: Tensor
    zero_point: Tensor | None

    def __init__(self, weight: Tensor, grid: AffineGrid) -> None:
        super().__init__()
        rows, self.dtype = len(weight), weight.dtype
        scale, zero_point = (
            tensor.float().expand(max(rows, len(tensor)), 1).reshape(rows, -1).clone()
            for tensor in (grid.scale, grid.zero_point)
        )
        self.register_buffer("codes", grid.codes(precise(weight)).to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point if bool(zero_point.any()) else None)

    @property
    def weight(self) -> Tensor:
        """The whole table in float."""
        rows: Tensor = self(torch.arange(len(self.codes), device=self.codes.device))
        return rows

    def forward(self, indices: Tensor) -> Tensor:
        codes = F.embedding(indices, self.codes).float()
        groups = codes.reshape(*indices.shape, self.scale.shape[1], -1)
        if self.zero_point is not None:
            groups = groups - F.embedding(indices, self.zero_point).unsqueeze(-1)
        return in_dtype(self.dtype, (groups * F.embedding(indices, self.scale).unsqueeze(-1)).reshape(codes.shape))


class QuantizedEmbedding(nn.Embedding):
    """An embedding whose rows are looked up as integers, then multiplied by their scale.

    Attributes:
        integers: its table.
    """

    integers: IntegerRows

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The whole table in float."""
        return self.integers.weight

    def forward(self, indices: Tensor) -> Tensor:
        rows: Tensor = self.integers(indices)
        return rows


def quantize_embedding_(layer: nn.Embedding, grid: AffineGrid) -> QuantizedEmbedding:
    """Turn an embedding, whose table is on ``grid``, into a :class:`QuantizedEmbedding`, in place; returns it."""
    integers = IntegerRows(layer.weight.detach(), grid)
    del layer._parameters["weight"]
    layer.integers = integers
    # Its own class comes first: it may scale the rows that the class of torch looks up.
    own = type(layer)
    layer.__class__ = QuantizedEmbedding if own is nn.Embedding else mixed(own, QuantizedEmbedding)
    return cast(QuantizedEmbedding, layer)
