"""Profiles: what the tensors of a module hold and how many bytes they take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.archive import archived_bytes
from lightning_compress.macs import Macs
from lightning_compress.processes import gather, local
from lightning_compress.quantization.grids import AffineGrid, Grid
from lightning_compress.quantization.weights import grids_of

__all__ = ["LayerProfile", "ModelProfile", "profile"]


@dataclass(frozen=True)
class LayerProfile:
    """One parameter tensor; tied ones are one.

    Attributes:
        name: in the state dict.
        shape: its sizes.
        nonzeros: elements that are not zero.
        distinct: different values among its elements.
        state_bytes: in a state dict, which stores every element.
        archive_bytes: as a ``.lcz`` archive of its own.
        bits: of an element: those of the integers on whose grid it was trained, else those of its dtype.
        scales: of the grid on which it was trained; 0 if on none.
    """

    name: str
    shape: tuple[int, ...]
    nonzeros: int
    distinct: int
    state_bytes: int
    archive_bytes: int
    bits: int = 32
    scales: int = 0

    @property
    def parameters(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()

    @property
    def sparsity(self) -> float:
        """Share of zeros, in [0, 1]; 0 of no elements."""
        return 1 - self.nonzeros / self.parameters if self.parameters else 0.0


@dataclass(frozen=True)
class ModelProfile:
    """A whole module.

    Attributes:
        layers: one profile per parameter tensor.
        state_bytes: of all tensors of the state dict, tied ones once, buffers too.
        archive_bytes: of the whole state dict as one ``.lcz`` file.
        macs: of a forward pass, if they were counted.
    """

    layers: tuple[LayerProfile, ...]
    state_bytes: int
    archive_bytes: int
    macs: Macs | None = None

    @property
    def parameters(self) -> int:
        """Number of elements of all parameters."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def nonzeros(self) -> int:
        """Number of elements that are not zero."""
        return sum(layer.nonzeros for layer in self.layers)

    @property
    def sparsity(self) -> float:
        """Share of zeros, in [0, 1]; 0 of no elements."""
        return 1 - self.nonzeros / self.parameters if self.parameters else 0.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelProfile:
        """The profile of which ``dataclasses.asdict`` made ``values``."""
        layers = tuple(LayerProfile(**{**layer, "shape": tuple(layer["shape"])}) for layer in values["layers"])
        macs = Macs(**values["macs"]) if values["macs"] else None
        return cls(layers, values["state_bytes"], values["archive_bytes"], macs)


def profile(module: nn.Module) -> ModelProfile:
    """Weigh ``module``. Sharded parameters are gathered: call it on every rank then.

    Raises:
        TypeError: the state dict holds what is no tensor.

    >>> weighed = profile(nn.Linear(3, 2))
    >>> weighed.parameters, weighed.state_bytes, weighed.layers[0].name
    (8, 32, 'weight')
    """
    state = {name: _whole(tensor) for name, tensor in module.state_dict().items()}
    archived = archived_bytes(state)
    grids = grids_of(module)
    return ModelProfile(
        layers=tuple(_layer(name, _whole(parameter), grids.get(name)) for name, parameter in module.named_parameters()),
        state_bytes=sum({_memory(name, tensor): tensor.nbytes for name, tensor in state.items()}.values()),
        archive_bytes=archived,
    )


def _layer(name: str, tensor: Tensor, grid: Grid | None) -> LayerProfile:
    return LayerProfile(
        name=name,
        shape=tuple(tensor.shape),
        nonzeros=int(tensor.count_nonzero()),
        distinct=_distinct(tensor),
        state_bytes=tensor.nbytes,
        archive_bytes=archived_bytes({name: tensor}),
        bits=_bits(tensor, grid),
        scales=0 if grid is None else grid.rows,
    )


def _distinct(tensor: Tensor) -> int:
    values: Tensor
    if tensor.is_complex():  # torch.unique takes none: the pairs of real numbers are counted
        values = torch.unique(torch.view_as_real(tensor.resolve_conj()).reshape(-1, 2), dim=0)
    else:
        values = torch.unique(tensor)
    return len(values)


def _bits(tensor: Tensor, grid: Grid | None) -> int:
    if grid is None:
        return 8 * tensor.element_size()
    ternary = isinstance(grid, AffineGrid) and (grid.low, grid.high) == (-1, 1)
    binary = ternary and bool(tensor.all())  # signs alone, no zero
    return 1 if binary else grid.bits


def _whole(value: Any) -> Any:
    return gather(local(value.detach()), value.detach()) if isinstance(value, Tensor) else value


def _memory(name: str, tensor: Tensor) -> tuple[Any, ...]:
    """Equal for tied tensors only; the memory of an empty one says nothing."""
    if tensor.numel() == 0:
        return (name,)
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape)
