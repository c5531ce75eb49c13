"""Processes: parameters that are sharded over them, and values that all of them agree on.

A parameter that FSDP2 shards is a ``DTensor``: each process holds a part of it. Functions on tensors also accept an
ordinary tensor, which needs no communication, so callers need not distinguish the two. A function that is called a
collective below communicates: call it on every process.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

__all__ = [
    "concatenate",
    "copy_without_weights",
    "from_rank_zero",
    "gather",
    "gather_numbers",
    "is_sharded",
    "largest",
    "local",
    "local_positions",
    "mean",
    "on_any_process",
    "reshard_",
    "shard",
    "shard_group",
    "shard_shape",
    "unshard_",
    "unsharded",
    "unsharded_class",
    "whole_copy",
]

_Module = TypeVar("_Module", bound=nn.Module)
_Value = TypeVar("_Value")


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of ``tensor`` if it is sharded, else ``tensor`` itself; memory is shared."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def shard(tensor: Tensor, like: Tensor) -> Tensor:
    """This rank's part of an unsharded ``tensor``, sharded as ``like`` is."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements).to_local()


def shard_shape(tensor: Tensor) -> torch.Size:
    """The shape of the largest shard of ``tensor``, the same on every process; its own shape if it is not sharded.

    >>> shard_shape(torch.zeros(4, 3))
    torch.Size([4, 3])
    """
    shape = list(tensor.shape)
    if isinstance(tensor, DTensor):
        for processes, placement in zip(tensor.device_mesh.shape, tensor.placements, strict=True):
            if isinstance(placement, Shard):
                shape[placement.dim] = -(-shape[placement.dim] // processes)
    return torch.Size(shape)


def gather(tensor: Tensor, like: Tensor) -> Tensor:
    """The unsharded tensor of which ``tensor`` is this rank's part, sharded as ``like`` is; a collective."""
    if not isinstance(like, DTensor):
        return tensor
    sharded = DTensor.from_local(
        tensor, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )
    return sharded.full_tensor()


def unsharded(tensor: Tensor) -> Tensor:
    """All of ``tensor`` if it is sharded, else ``tensor`` itself; a collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local_positions(positions: Tensor, like: Tensor, dim: int) -> Tensor:
    """Translate positions in a tensor into positions in this rank's shard of it.

    Args:
        positions: indices along a dimension of the unsharded tensor.
        like: the tensor.
        dim: the dimension.

    Returns:
        indices along this dimension of the shard; positions that other ranks hold are left out.

    >>> local_positions(torch.tensor([0, 2]), torch.zeros(4, 3), dim=1)
    tensor([0, 2])
    """
    rows = torch.arange(like.shape[dim], device=like.device)
    if isinstance(like, DTensor):
        placements = [Shard(0) if placement.is_shard(dim) else Replicate() for placement in like.placements]
        rows = distribute_tensor(rows, like.device_mesh, placements, src_data_rank=None).to_local()
    return torch.isin(rows, positions.to(rows.device)).nonzero().flatten()


def shard_group(parameters: Sequence[Tensor]) -> dist.ProcessGroup | None:
    """The processes that the parameters are sharded over; None if the parameters are not sharded.

    Raises:
        ValueError: the parameters are sharded in several ways, or over a mesh of several dimensions.
    """
    meshes = {p.device_mesh for p in parameters if isinstance(p, DTensor)}
    if not meshes:
        return None
    mesh = meshes.pop()
    if meshes or mesh.ndim != 1 or not all(isinstance(p, DTensor) for p in parameters):
        raise ValueError("need all targets sharded over one and the same one-dimensional device mesh, or scope='layer'")
    return mesh.get_group()


def gather_numbers(number: int, group: dist.ProcessGroup | None) -> list[int]:
    """The numbers that the processes of ``group`` pass, in the order of their ranks; a collective.

    Args:
        number: the number that this process passes.
        group: the processes; None for this process alone.
    """
    if group is None:
        return [number]
    numbers = [0] * dist.get_world_size(group)
    dist.all_gather_object(numbers, number, group=group)
    return numbers


def concatenate(tensor: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """The tensors of all processes of ``group``, concatenated in the order of their ranks; a collective.

    Args:
        tensor: ``(n, ...)``, on the CPU if ``group`` is given; ``n`` may differ between processes.
        group: the processes; None for this process alone.
    """
    if group is None:
        return tensor
    tensors = [tensor] * dist.get_world_size(group)
    dist.all_gather_object(tensors, tensor.cpu(), group=group)
    return torch.cat(tensors)


def mean(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The mean of each tensor over all processes; a collective. A single process gets its tensors back.

    Args:
        tensors: of any shapes and one dtype, the same on every process.

    >>> mean([torch.tensor([1.0, 2.0])])
    [tensor([1., 2.])]
    """
    if not tensors or not _distributed():
        return list(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    parts = torch.split_with_sizes(flat / dist.get_world_size(), [tensor.numel() for tensor in tensors])
    return [part.view_as(tensor) for part, tensor in zip(parts, tensors, strict=True)]


def largest(tensor: Tensor) -> Tensor:
    """The largest of each element over all processes; a collective. A single process gets its tensor back.

    >>> largest(torch.tensor([1.0, 2.0]))
    tensor([1., 2.])
    """
    if not _distributed():
        return tensor
    tensor = tensor.clone()
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor


def on_any_process(flags: Sequence[Tensor]) -> list[bool]:
    """Whether each flag is set on at least one process; a collective.

    Args:
        flags: scalars of booleans, as many on every process.

    >>> on_any_process([torch.tensor(True), torch.tensor(False)])
    [True, False]
    """
    if not flags:
        return []
    (shares,) = mean([torch.stack([flag.to(flags[0].device) for flag in flags]).float()])
    return [share > 0 for share in shares.tolist()]


def from_rank_zero(value: _Value) -> _Value:
    """The value that the process with rank 0 passes, on every process; a collective.

    >>> from_rank_zero(0.5)
    0.5
    """
    if not _distributed():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized()


def is_sharded(module: nn.Module) -> bool:
    """Whether ``module`` or a part of it has gone through ``fully_shard``.

    >>> is_sharded(nn.Linear(2, 3))
    False
    """
    return any(isinstance(layer, FSDPModule) for layer in module.modules())


def unsharded_class(layer: nn.Module) -> type[nn.Module]:
    """The class of ``layer``, or the one from which ``fully_shard`` has derived it.

    >>> unsharded_class(nn.Linear(2, 3))
    <class 'torch.nn.modules.linear.Linear'>
    """
    kinds: tuple[type[nn.Module], ...] = type(layer).__mro__
    return next(kind for kind in kinds if not issubclass(kind, FSDPModule))


def reshard_(module: nn.Module) -> None:
    """Let a sharded ``module`` hold its shards: after a forward pass without a backward pass it holds whole weights."""
    for layer in module.modules():
        if isinstance(layer, FSDPModule):
            layer.reshard()


@torch.no_grad()
def unshard_(module: nn.Module) -> None:
    """Turn a sharded ``module`` into an ordinary one that holds all of its weights, in place; a collective.

    Its optimizers go on with the old parameters, and gradients are lost.
    """
    reshard_(module)
    _undo_sharding_(module, DTensor.full_tensor)


def copy_without_weights(module: _Module) -> _Module:
    """Copy a sharded module as an ordinary one, with zeros in place of sharded weights; needs no communication."""
    before = [(layer, type(layer), dict(vars(layer))) for layer in module.modules()]
    try:
        _undo_sharding_(module, lambda shard: torch.zeros(shard.shape, dtype=shard.dtype, device=shard.device))
        return copy.deepcopy(module)
    finally:
        for layer, kind, attributes in before:
            layer.__class__ = kind
            vars(layer).clear()
            vars(layer).update(attributes)


@torch.no_grad()
def whole_copy(module: _Module) -> _Module:
    """Copy a sharded module as an ordinary one on the CPU that holds all of its weights; a collective."""
    state = {name: unsharded(value).cpu() for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    copied = copy_without_weights(module).cpu()
    copied.load_state_dict(state, strict=False)
    return copied


def _undo_sharding_(module: nn.Module, full: Callable[[DTensor], Tensor]) -> None:
    """Undo ``fully_shard``. Attributes of the layers are replaced, never changed in place."""
    made = {p: nn.Parameter(full(p), p.requires_grad) for p in module.parameters() if isinstance(p, DTensor)}
    for layer in module.modules():
        if isinstance(layer, FSDPModule):
            layer.__class__ = unsharded_class(layer)  # type: ignore[assignment]
        attributes = vars(layer)
        attributes["_parameters"] = {key: made.get(p, p) for key, p in layer._parameters.items()}  # type: ignore[call-overload]
        for key, value in attributes.items():
            if key.endswith("_hooks"):
                attributes[key] = type(value)((k, hook) for k, hook in value.items() if not _belongs_to_fsdp(hook))
            elif key.startswith("__composable_api"):
                attributes[key] = type(value)()


def _belongs_to_fsdp(hook: Any) -> bool:
    return str(getattr(hook, "__module__", "")).startswith("torch.distributed.fsdp")
