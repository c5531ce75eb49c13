"""Profiles: values and sizes of the tensors of a module."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lightning_compress.adapters import additive_paths
from lightning_compress.deploy.writers.archive import sizes_of
from lightning_compress.example_inputs import ExampleInput
from lightning_compress.macs import Macs, count_macs
from lightning_compress.processes import gather, local
from lightning_compress.quantization.activations.quantizers import quantizers_of
from lightning_compress.quantization.grids import AffineGrid, Grid
from lightning_compress.quantization.weights import grids_of
from lightning_compress.training.copies import merged_copy

__all__ = ["LayerProfile", "ModelProfile", "profile", "shipped_macs"]


@dataclass(frozen=True)
class LayerProfile:
    """One parameter tensor; tied parameters count as one.

    Attributes:
        name: in the state dict.
        shape: sizes of its dimensions.
        nonzeros: number of elements that are not zero.
        distinct: number of distinct values.
        state_bytes: size in a state dict, which stores every element.
        archive_bytes: its bytes in the ``.lcz`` file; small tensors share a block by their elements.
        bits: per element; of the integer grid on which the tensor was trained, or of its dtype.
        scales: number of scales of that grid; 0 without a grid.
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
        """Fraction of zeros, in [0, 1]; 0 if there are no elements."""
        return 1 - self.nonzeros / self.parameters if self.parameters else 0.0


@dataclass(frozen=True)
class ModelProfile:
    """A whole module.

    Attributes:
        layers: one profile per parameter tensor.
        state_bytes: size of all tensors of the state dict, buffers included, tied ones once.
        archive_bytes: size of the ``.lcz`` file, which holds the state dict and the carried records.
        macs: multiply-accumulates of a forward pass, if they were counted.
        activations: number of quantizers of activations.
    """

    layers: tuple[LayerProfile, ...]
    state_bytes: int
    archive_bytes: int
    macs: Macs | None = None
    activations: int = 0

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
        """Fraction of zeros, in [0, 1]; 0 if there are no elements."""
        return 1 - self.nonzeros / self.parameters if self.parameters else 0.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelProfile:
        """Inverse of ``dataclasses.asdict``."""
        layers = tuple(LayerProfile(**{**layer, "shape": tuple(layer["shape"])}) for layer in values["layers"])
        macs = Macs(**values["macs"]) if values["macs"] else None
        return cls(layers, values["state_bytes"], values["archive_bytes"], macs, values.get("activations", 0))


def profile(module: nn.Module) -> ModelProfile:
    """Profile ``module`` as it ships. Sharded parameters are gathered, so every rank has to call it.

    A weight with adapters is the sum of both. Its layer has the name that it has in ``module``.

    Raises:
        TypeError: the state dict holds something other than tensors.

    >>> weighed = profile(nn.Linear(3, 2))
    >>> weighed.parameters, weighed.state_bytes, weighed.layers[0].name
    (8, 32, 'weight')
    """
    shipped = merged_copy(module)
    state = {name: _whole(tensor) for name, tensor in shipped.state_dict().items()}
    archived = sizes_of(shipped, state)
    grids = grids_of(shipped)
    names = {} if shipped is module else _names(module)
    return ModelProfile(
        layers=tuple(
            _layer(_name(name, names), _whole(parameter), grids.get(name), archived.tensors.get(name, 0.0))
            for name, parameter in shipped.named_parameters()
        ),
        state_bytes=sum({_memory(name, tensor): tensor.nbytes for name, tensor in state.items()}.values()),
        archive_bytes=archived.file,
        activations=len(quantizers_of(shipped)),
    )


def shipped_macs(module: nn.Module, example_input: ExampleInput) -> Macs:
    """Count the multiply-accumulates of ``module`` as it ships: adapters are merged, and layers keep their names.

    Args:
        module: the module, not sharded.
        example_input: as in :func:`~lightning_compress.macs.count_macs`.

    >>> shipped_macs(nn.Linear(30, 20), torch.zeros(1, 30)).layers
    {'': 600}
    """
    shipped = merged_copy(module)
    counted = count_macs(shipped, example_input)
    if shipped is module:
        return counted
    names = _names(module)
    return replace(counted, layers={names.get(name, name): count for name, count in counted.layers.items()})


def _names(module: nn.Module) -> dict[str, str]:
    """Name of each layer whose adapters are merged -> its name in ``module``, beside its adapters."""
    return {path.name: path.weight_name.rpartition(".")[0] for path in additive_paths(module)}


def _name(parameter: str, names: Mapping[str, str]) -> str:
    layer, _, key = parameter.rpartition(".")
    return f"{names[layer]}.{key}" if layer in names else parameter


def _layer(name: str, tensor: Tensor, grid: Grid | None, archived: float) -> LayerProfile:
    return LayerProfile(
        name=name,
        shape=tuple(tensor.shape),
        nonzeros=int(tensor.count_nonzero()),
        distinct=_distinct(tensor),
        state_bytes=tensor.nbytes,
        archive_bytes=round(archived),
        bits=_bits(tensor, grid),
        scales=0 if grid is None else grid.rows,
    )


def _distinct(tensor: Tensor) -> int:
    values: Tensor
    if tensor.is_complex():  # torch.unique takes no complex numbers
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
    """A key that only tied tensors have in common; empty tensors have no memory to compare."""
    if tensor.numel() == 0:
        return (name,)
    return tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape)
